"""The benchmark of language engines: its requests are answered, its bars are judged by the numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.language.arms import ALL_CORES, ALONE, ANYRES, ARMS, LONG_ARMS, NONE, SINGLE, TOSA, Arm
from bench.language.measure import prefix_cache, repeated, throughput
from bench.load.serving import Serving
from bench.tables import language as tables
from bench.tables import markdown
from tests.service.conftest import checkpoint as checkpoint
from tests.service.live import Live, live

OURS = [arm for arm in ARMS if arm.server == "torch"]


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


def serving(served: Live) -> Serving:
    return Serving(str(served.client.base_url).rstrip("/"), psutil.Process(), 0.0)


@pytest.mark.parametrize("arm", OURS, ids=lambda arm: arm.name)
def test_every_request_to_our_service_is_answered(served: Live, arm: Arm) -> None:
    measured = asyncio.run(throughput(arm, serving(served), range(3), 2, (2, 3)))
    assert measured["answered"] == 3 and 3 <= measured["tokens_per_s"] * measured["seconds"] <= 8
    again = asyncio.run(repeated(arm, serving(served), range(2), 2))
    assert again["answered"] == 4


def test_a_refusal_ends_the_benchmark(served: Live) -> None:
    wrong = Arm("torch", {"method": "no such method", "views": "single"})
    with pytest.raises(ValueError, match="no such method was not answered: 422"):
        asyncio.run(throughput(wrong, serving(served), range(1), 1, (1,)))


def test_vllm_alone_is_asked_as_its_clients_ask() -> None:
    request = ALONE.request(0)
    assert request.headers()["Content-Type"] == "application/json"
    (message,) = json.loads(request.body)["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert ALONE.answer({"choices": [{"message": {"content": " yes"}}]}) == "yes"


def test_the_counters_of_vllm_are_added_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (
        'vllm:prefix_cache_queries_total{engine="0"} 40.0\nvllm:prefix_cache_queries_total{engine="1"} 2.0\n'
    )
    (tmp_path / "metrics").write_text(
        f"# HELP vllm:prefix_cache_queries of tokens\n{text}vllm:prefix_cache_hits_total 32.0\n"
    )
    assert prefix_cache(Serving(tmp_path.as_uri(), psutil.Process(), 0.0)) == (42, 32)


def run(part: str, arm: Arm, clients: int, ms: float = 100, tokens: float = 10) -> dict[str, Any]:
    numbers: dict[str, Any] = {"ms_an_answer": ms, "tokens_per_s": tokens, "right": 9, "sent": 10}
    numbers |= {"latency_ms": {"p50": 2 * ms if arm == ALONE else ms}}
    return {"part": part, "arm": arm.name, "clients": clients, "round": 0, **numbers}


def result(tosa_ms: float) -> dict[str, Any]:
    tosa = Arm("vllm", ANYRES | TOSA)
    others = [(arm, 80 if arm == ALL_CORES else 100) for arm in ARMS if arm != tosa]
    runs = [run("throughput", arm, clients, ms) for arm, ms in others for clients in (16, 64)]
    runs += [run("throughput", tosa, clients, tosa_ms) for clients in (16, 64)]
    runs += [
        run("long answers", arm, 16, tokens=tokens) for arm, tokens in zip(LONG_ARMS, (10, 15), strict=True)
    ]
    runs += [run("repeated frames", arm, 1, ms) for arm, ms in ((ALONE, 23), (ALL_CORES, 24), (tosa, 24))]
    machine = {"processor": "a CPU", "threads": 1, "torch": "2"}
    made = {"machine": machine, "date": "2026-11-29", "environment": {"python": "3.11"}}
    return {**made, "runs": runs, "second_question": {Arm("vllm", SINGLE | NONE).name: {"ratio": 0.4}}}


@pytest.mark.parametrize(("ms", "verdict"), [(58, "held"), (59, "missed")])
def test_bars_are_judged_by_the_numbers(monkeypatch: pytest.MonkeyPatch, ms: float, verdict: str) -> None:
    monkeypatch.setattr(tables, "_result", lambda: result(ms))
    verdicts = [line.split("|")[-2].strip() for line in tables.bars().splitlines()[2:]]
    alone, all_cores = ["held", "held", verdict, verdict], ["missed"] * 4
    repeated_frames = ["missed", "held", "held", "held"]  # mean, median; alone, with all cores
    assert verdicts == [*alone, *all_cores, "held", *repeated_frames, "held"]


def test_a_table_shows_every_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_result", lambda: result(50))
    monkeypatch.setattr(tables, "environment_line", lambda _: "here")
    lines = tables.throughput().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(ARMS)
    assert f"| {Arm('vllm', ANYRES | TOSA).name} | 50 | 2.00 | 50 | 2.00 | 90 % |" in lines
    assert "Medians of 1 interleaved rounds" in lines[-1]


def test_pages_can_be_written_before_anything_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(markdown, "RESULTS", tmp_path)
    assert tables.bars() == tables.throughput() == tables.equality() == tables.NOT_MEASURED
    one = {"equal": 7, "near": 2, "different": 1}
    made = {"questions": 10, "margin": 1e-4, "settings": ["none"], "at_once": {"16": one}}
    machine = {"processor": "a CPU", "threads": 1, "torch": "2"}
    (tmp_path / "language_equality.json").touch()
    monkeypatch.setattr(markdown, "load", lambda _: {**made, "machine": machine, "date": "2026-11-30"})
    assert "| 16 at once | 7 | 2 | 1 |" in tables.equality()
