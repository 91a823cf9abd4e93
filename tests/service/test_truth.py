"""Nobody gets another's answer, whoever else is served, leaves or fails at the same time; nothing is lost.

Every answer in the storm is compared with what the same question hears alone, and what the service counted
with what its clients saw.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import service.engine.batch_runner
from service.engine.jobs import Job
from tests.depth.files import png8, png16
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question
from tests.service.test_streams import events_of

METHODS = ("none", "tome", "tosa", "tofu", "pitome", "cubist", "random", "pool")
REQUESTS = 160


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, max_queue=16, max_batch=8, frame_cache_mib=1) as served:
        yield served


@dataclass(frozen=True)
class Known:
    """A question of its own picture, and the answer it gets alone."""

    request: Question
    answer: str


@pytest.fixture(scope="module")
def known(served: Live) -> list[Known]:
    """Questions that all have different answers, so that a mix-up shows."""
    found: dict[str, Known] = {}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        depth = png16(rng.integers(300, 9000, (48, 64)).astype(np.uint16))
        method = METHODS[seed % len(METHODS)]
        images = png8(rng.integers(0, 256, (48, 64, 3))), png8(rng.integers(0, 256, (48, 64, 3)))
        number = 1 + seed % 2
        request = Question(images[:number], (depth,) * number).but(
            question="how many " * (1 + seed % 3), method=method, max_new_tokens=12
        )
        answer = request.but(cache=False).post(served.client, "json").json()["answer"]
        found.setdefault(answer, Known(request, answer))
        if len(found) == 16:
            break
    assert len(found) >= 12, "too few different answers to notice a mix-up"
    return list(found.values())


def ask(served: Live, one: Known, how: str, at: int) -> str:
    """Ask in one of several ways; return ok, wrong, or the code of a refusal."""
    match how:
        case "leave":
            with served.connect() as connection:
                connection.sendall(raw_question(one.request.but(stream=at % 2 == 0)))
            return "left"
        case "bad":
            response = one.request.but(images=(b"no image",) * len(one.request.images)).post(
                served.client, "json"
            )
            return response.json()["error"]["code"]
        case "late":
            response = one.request.but(timeout_s=0.001).post(served.client, "multipart")
            return "ok" if response.status_code == 200 else response.json()["error"]["code"]
        case "stream":
            response = one.request.but(stream=True).post(served.client, "multipart")
            answer = events_of(response.text)[-1][1] if response.status_code == 200 else response.json()
        case _:
            more = {"cache": False} if how == "uncached" else {}
            headers = {"X-Request-ID": "the-same-for-all"}
            with httpx.Client(base_url=served.client.base_url, headers=headers, timeout=PATIENCE_S) as client:
                answer = one.request.but(**more).post(client, "json").json()
    if "error" in answer:
        return answer["error"]["code"]
    return "ok" if answer["answer"] == one.answer else "wrong"


def storm(served: Live, known: list[Known], seed: int) -> Counter[str]:
    rng = random.Random(seed)
    ways = ["plain", "uncached", "stream", "stream", "plain", "leave", "bad", "late"]
    with ThreadPoolExecutor(12) as pool:
        answers = [
            pool.submit(ask, served, rng.choice(known), rng.choice(ways), at) for at in range(REQUESTS)
        ]
        return Counter(one.result() for one in answers)


def counted(served: Live) -> dict[str, float]:
    text = served.client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(\S+) ([0-9.e+]+)$", text, re.M)}


def test_everybody_gets_their_own_answer_and_every_end_is_counted(served: Live, known: list[Known]) -> None:
    before = counted(served)
    seen = storm(served, known, seed=1)
    wait_for(lambda: served.in_flight == 0)
    assert seen["wrong"] == 0, seen
    assert set(seen) <= {"ok", "left", "bad_image", "deadline_exceeded", "overloaded"}, seen
    assert min(seen["ok"], seen["left"], seen["bad_image"], seen["deadline_exceeded"]) > 5, seen

    after = counted(served)
    growth = {name: after[name] - before.get(name, 0) for name in after}
    for code in ("bad_image", "deadline_exceeded", "overloaded"):
        assert growth.get(f'tosa_vqa_refused_total{{code="{code}"}}', 0) == seen[code], code
    ended = sum(value for name, value in growth.items() if name.startswith("tosa_vqa_requests_total{"))
    assert ended == REQUESTS, "nobody is lost, and nobody counted twice"
    assert after["tosa_vqa_in_flight"] == after["tosa_vqa_queue_depth"] == after["tosa_vqa_running"] == 0


@pytest.mark.long
def test_the_storm_would_notice_a_mix_up(
    served: Live, known: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: a batch that hands its answers to the neighbours."""
    run = service.engine.batch_runner.BatchRunner._answer

    def mixed(self: Any, jobs: list[Job]) -> Iterator[None]:
        if len(jobs) > 1:
            futures = [job.answer for job in jobs]
            for job, other in zip(jobs, [*futures[1:], futures[0]], strict=True):
                job.answer = other
        yield from run(self, jobs)

    monkeypatch.setattr(service.engine.batch_runner.BatchRunner, "_answer", mixed)
    assert storm(served, known, seed=2)["wrong"] > 0
