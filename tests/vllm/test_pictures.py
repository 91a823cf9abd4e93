"""Qwen2.5-VL and Qwen3-VL behind a real vLLM server, which is told where pictures are and their grids."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from bench.load.serving import Serving
from bench.vllm_server import metrics, vllm_serving
from service.cli.language_model import server_command
from tests.language.conftest import assert_a_schema_is_kept, same
from tests.loopback import wait_for
from tests.needs import skip_without
from tests.service.chats import chat, image, text, user
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question
from tests.vllm.client import busy
from tests.vllm.recorded import alike, written
from tests.vllm.recorded_pictures import KEPT, PICTURES
from tests.vllm.wide import SECTIONS, write_wide
from tests.vlm.family_pictures import picture
from vlm.families.qwen_vl import QwenVL
from vlm.language_checkpoint import write_language_model

pytestmark = pytest.mark.vllm


@dataclass(frozen=True)
class Pair:
    """A service with its language model, and one in front of a vLLM server."""

    name: str
    here: Live
    apart: Live
    server: Serving


@pytest.fixture(scope="module", params=list(SECTIONS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    skip_without("vllm")
    folder = tmp_path_factory.mktemp(request.param)
    model = write_wide(folder / "model", request.param)
    written = write_language_model(model, folder / "known")
    with vllm_serving(written.model, *_flags(server_command(written))) as server:
        settings: dict[str, Any] = {"language_urls": server.url, "language_probe": str(folder / "known")}
        more: dict[str, Any] = {"max_images": 16, "max_queue": 16}
        with live(model, **more) as here, live(model, language="vllm", **settings, **more) as apart:
            yield Pair(request.param, here, apart, server)


def _flags(command: str) -> list[str]:
    """Return what the printed command says beyond that which every server of the tests gets."""
    words = shlex.split(command)
    own = words[words.index("--structured-outputs-config.backend") :]
    at = own.index("--host")
    return [*own[:at], *own[at + 4 :], "--max-model-len", "1024", "--block-size", "32"]


SIZES = ((150, 200), (120, 90), (64, 256))


def png(seed: int) -> bytes:
    """Paint one of a few sizes."""
    buffer = io.BytesIO()
    picture(SIZES[seed % len(SIZES)], seed).save(buffer, "PNG")
    return buffer.getvalue()


def vqa(served: Live, images: Sequence[bytes], **fields: Any) -> httpx.Response:
    given = {"question": "what is left of it ?", "method": "none", "max_new_tokens": 12, **fields}
    return Question(tuple(images), (), given).post(served.client, "json")


def both(pair: Pair, images: Sequence[bytes], **fields: Any) -> list[Any]:
    """Ask both services, and return what the two answers have to have in common."""
    answers = [vqa(one, images, **fields) for one in (pair.here, pair.apart)]
    assert all(answer.status_code == 200 for answer in answers), answers[-1].text
    return [same(answer.json()) for answer in answers]


@pytest.mark.parametrize("seed", range(6))
def test_tokens_and_probabilities_are_those_of_this_process(pair: Pair, seed: int) -> None:
    parts = [image(png(seed)), text("what is left of it ?"), image(png(seed + 1)), text("and here ?")]
    fields = {"max_tokens": 16, "logprobs": True, "top_logprobs": 5, "merge": {"method": "none"}}
    here, apart = (
        one.client.post("/v1/chat/completions", json=chat(user(*parts[: 2 + seed % 3]), **fields))
        for one in (pair.here, pair.apart)
    )
    assert here.status_code == apart.status_code == 200, apart.text
    ours, theirs = (answer.json()["choices"][0] for answer in (here, apart))
    assert theirs["message"] == ours["message"] and here.json()["usage"] == apart.json()["usage"]
    expected, found = (choice["logprobs"]["content"] for choice in (ours, theirs))
    assert len(expected) >= 8
    assert [one["token"] for one in found] == [one["token"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        top = [likely["logprob"] for likely in other["top_logprobs"]]
        assert [likely["logprob"] for likely in one["top_logprobs"]] == pytest.approx(top, abs=1e-4)


def test_answers_are_those_of_this_process(pair: Pair) -> None:
    for seed in range(6):
        here, apart = both(pair, [png(seed)])
        assert apart == here
    here, apart = both(pair, [png(1), png(2), png(3)])
    assert apart == here


def test_many_at_once_get_their_own_answers(pair: Pair) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: both(pair, [png(seed)], max_new_tokens=4 + seed % 9), range(48)))
    assert [apart for _, apart in answers] == [here for here, _ in answers]
    assert len({apart["answer"] for _, apart in answers}) > 24


@pytest.mark.parametrize("frames", [2, 3, 9])
def test_videos_have_their_times(pair: Pair, frames: int) -> None:
    here, apart = both(pair, [png(3 * seed) for seed in range(frames)], views="video")
    assert apart == here


def test_a_second_question_about_a_picture_reads_only_what_is_new(pair: Pair) -> None:
    first = metrics(pair.server.url)["vllm:prefix_cache_hits_total"]
    for question in ("what is left of it ?", "what is right of it ?"):
        both(pair, [png(8)], question=question)
    assert metrics(pair.server.url)["vllm:prefix_cache_hits_total"] >= first + 32


@pytest.mark.parametrize("method", ["tome", "cubist", "pool"])
def test_merged_pictures_keep_their_grid(pair: Pair, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the answers of a model here that does so too."""
    monkeypatch.setattr(QwenVL, "keeps_grids", True)
    here, apart = both(pair, [png(0), png(1)], method=method, keep_ratio=0.5, cache=False)
    assert apart == here and apart["merge"]["saves"] == ["vit"]


def test_answers_keep_to_a_schema(pair: Pair) -> None:
    assert_a_schema_is_kept(pair.here, pair.apart, png(2))


def test_clients_that_leave_end_their_answers(pair: Pair) -> None:
    """Several at once: one answer of so small a model may be whole before anybody can leave."""
    clients, most = 12, 900
    fields = {"question": "?", "method": "none", "stream": True, "max_new_tokens": most}
    before = metrics(pair.server.url)["vllm:generation_tokens_total"]
    with ExitStack() as stack:
        for seed in range(clients):
            connection = stack.enter_context(closing(pair.apart.connect()))
            connection.sendall(raw_question(Question((png(seed),), (), fields)))
        wait_for(lambda: metrics(pair.server.url)["vllm:generation_tokens_total"] > before)
    wait_for(lambda: busy(pair.server.url) == 0 and pair.apart.in_flight == 0)
    assert metrics(pair.server.url)["vllm:generation_tokens_total"] - before < clients * most


@pytest.mark.parametrize("pair", ["qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize("name", PICTURES)
def test_the_server_still_answers_as_it_did(pair: Pair, name: str) -> None:
    found = written(PICTURES[name](pair.server.url, pair.apart.state.models().vlm))
    path = KEPT / f"{name}.json"
    if os.environ.get("VLLM_RECORD"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert alike(found) == alike(json.loads(path.read_text()))


def test_nothing_else_is_kept() -> None:
    assert {path.stem for path in KEPT.glob("*.json")} == set(PICTURES)
