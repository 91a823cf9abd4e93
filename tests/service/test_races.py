"""Two things at once: the same frame, the same id, a drain, a deadline or a departure at the last moment."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question
from tests.service.test_leaving import encoded as encoded
from tests.service.test_streams import events_of


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, max_queue=24, max_batch=8, frame_cache_mib=1) as served:
        yield served


def post(served: Live, request: Question, **headers: str) -> httpx.Response:
    with httpx.Client(base_url=served.client.base_url, headers=headers, timeout=PATIENCE_S) as client:
        return request.post(client, "json")


def is_empty(served: Live) -> bool:
    model = served.state.engine.model_thread
    return served.in_flight == len(served.state.arrivals) == model.waiting == model.running == 0


def test_the_same_question_at_once_with_and_without_memory(
    served: Live, question: Question, encoded: list[int]
) -> None:
    with ThreadPoolExecutor(16) as pool, served.busy():
        posted = [
            pool.submit(post, served, question.but(cache=at % 2 == 0), **{"X-Request-ID": "same"})
            for at in range(16)
        ]
        wait_for(lambda: served.state.engine.model_thread.waiting == 16)
    answers = [one.result() for one in posted]
    assert {one.status_code for one in answers} == {200}
    assert {one.headers["x-request-id"] for one in answers} == {"same"}
    assert len({one.json()["answer"] for one in answers}) == 1
    assert sum(encoded) == 1 + 8, "once for all who share it, and once for each who does not"
    cached = [one.json()["cached"] for one in answers]
    assert sum(cached[::2]) == 7 and not any(cached[1::2])


def test_a_drain_in_the_middle_loses_nobody(checkpoint: Path, question: Question) -> None:
    with live(checkpoint, drain_pause_s=0.2, max_queue=24) as served:
        truth = question.post(served.client, "json").json()["answer"]
        stop, seen = threading.Event(), Counter[str]()

        def ask(at: int) -> None:
            while not stop.is_set():
                response = post(served, question.but(stream=at % 2 == 0))
                if response.status_code != 200:
                    seen[response.json()["error"]["code"]] += 1
                elif at % 2:
                    seen["right" if response.json()["answer"] == truth else "wrong"] += 1
                else:
                    name, data = events_of(response.text)[-1]
                    seen["right" if name == "answer" and data["answer"] == truth else "wrong"] += 1

        with ThreadPoolExecutor(8) as pool:
            for at in range(8):
                pool.submit(ask, at)
            wait_for(lambda: seen["right"] > 8)
            served.loop.call_soon_threadsafe(served.state.drain)
            wait_for(lambda: seen["draining"] > 5)
            stop.set()
        assert set(seen) == {"right", "draining"}, seen
        wait_for(lambda: is_empty(served))


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_just_at_the_end_is_one_or_the_other(
    served: Live, question: Question, stream: bool
) -> None:
    """The deadline follows the time it takes: longer after one that was missed, shorter after one met."""
    request = question.but(max_new_tokens=24, stream=stream, cache=False)
    start = time.monotonic()
    truth = question.but(max_new_tokens=24).post(served.client, "json").json()["answer"]
    limit_s, seen, rng = time.monotonic() - start, Counter[str](), random.Random(2)
    while seen.total() < 40 or min(seen["late"], seen["answered"]) < 5:
        late = seen["late"]
        judge(request.but(timeout_s=limit_s).post(served.client, "json"), stream, truth, seen)
        limit_s = limit_s * rng.uniform(1, 1.5) if seen["late"] > late else limit_s * rng.uniform(0.6, 1)
    wait_for(lambda: is_empty(served))


def judge(response: httpx.Response, stream: bool, truth: str, seen: Counter[str]) -> None:
    """Count an answer or a deadline missed; anything else fails."""
    if response.status_code != 200:
        assert response.json()["error"]["code"] == "deadline_exceeded"
        seen["late"] += 1
    else:
        events = events_of(response.text) if stream else [("answer", response.json())]
        texts = "".join(data["text"] for name, data in events[:-1] if name == "text")
        assert all(name == "text" for name, _ in events[:-1])
        name, data = events[-1]
        if name == "answer":
            assert data["answer"] == truth and (not stream or texts == truth)
        else:
            assert data["error"]["code"] == "deadline_exceeded" and truth.startswith(texts)
        seen["answered" if name == "answer" else "late"] += 1


def test_departures_at_any_moment_leave_nothing(served: Live, question: Question) -> None:
    rng = random.Random(4)
    raw = [raw_question(question.but(stream=one, max_new_tokens=24, cache=False)) for one in (False, True)]

    def disconnect(seed: int) -> None:
        own = random.Random(seed)
        with served.connect() as connection:
            data = raw[seed % 2]
            connection.sendall(data[: own.choice((len(data), len(data), own.randrange(len(data))))])
            time.sleep(own.uniform(0, 0.15))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(disconnect, (rng.randrange(10**6) for _ in range(120))))
    wait_for(lambda: is_empty(served))
    assert served.state.engine._decoders._work_queue.qsize() == 0
    assert question.post(served.client, "json").status_code == 200


class Body:
    """Something as large as what a client sent."""


def test_what_waits_to_be_decoded_is_let_go_when_its_client_leaves(served: Live) -> None:
    """Places are free again at once, so that bodies of those who left would pile up behind a slow decoder."""
    engine, release = served.state.engine, threading.Event()

    async def disconnect() -> weakref.ref[Body]:
        body = Body()
        waiting = asyncio.ensure_future(engine.decode(id, body))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        return weakref.ref(body)

    async def crowd() -> Any:
        slow = [asyncio.ensure_future(engine.decode(release.wait)) for _ in range(4)]
        await asyncio.sleep(0.05)
        gone = await disconnect()
        gc.collect()
        is_gone = gone() is None
        release.set()
        await asyncio.gather(*slow)
        return is_gone

    assert asyncio.run_coroutine_threadsafe(crowd(), served.loop).result(PATIENCE_S)
