"""Whoever leaves frees a place at once, at every stage, plain and streaming, and nothing goes on for them.

At once means before anything else could: the model is held until the place is free, and no limit is near.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import service.engine.vision_stage
from service.api.request_context import RequestContext
from service.pipeline.frames import frame_visuals
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import PLACES, Question, until_ready
from tests.service.live import Live, live, raw_question, read_until
from vlm import Decoding, Visual


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def raw(request: pytest.FixtureRequest, question: Question) -> bytes:
    return raw_question(question.but(stream=request.param))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the encoder was asked for."""
    sizes: list[int] = []

    def counted(vlm: Any, frames: Sequence[Any], between: Any) -> list[Visual]:
        sizes.append(len(frames))
        return frame_visuals(vlm, frames, between)

    monkeypatch.setattr(service.engine.vision_stage, "frame_visuals", counted)
    return sizes


def test_leaving_while_sending(served: Live, raw: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(raw[:-100])
        wait_for(lambda: len(served.state.arrivals) == 1)
        assert served.in_flight == 0
    wait_for(lambda: len(served.state.arrivals) == 0)


def test_leaving_while_waiting(served: Live, raw: bytes, question: Question, encoded: list[int]) -> None:
    with served.busy():
        for _ in range(3):
            with served.connect() as connection:
                connection.sendall(raw)
                wait_for(lambda: served.state.engine.model_thread.waiting == 1)
            wait_for(lambda: served.in_flight == 0)
            served.state.engine._batch_queue.take()
    assert question.post(served.client, "json").status_code == 200
    assert encoded == [1], "nothing ran for those who left"


def test_leaving_while_the_encoder_runs(
    served: Live, raw: bytes, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, is_free = list[int](), threading.Event()

    def slow(vlm: Any, frames: Sequence[Any], between: Callable[[], None]) -> list[Visual]:
        def wait() -> None:
            layers.append(1)
            assert is_free.wait(PATIENCE_S)
            between()

        return frame_visuals(vlm, frames, wait)

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.vision_stage, "frame_visuals", slow)
        with served.connect() as connection:
            connection.sendall(raw)
            wait_for(lambda: len(layers) == 1)
        wait_for(lambda: served.in_flight == 0)
        is_free.set()
        wait_for(lambda: served.state.engine.model_thread.running == 0)
    assert len(layers) == 1, "the encoder stopped at the next layer"
    assert question.post(served.client, "json").status_code == 200


def test_leaving_while_tokens_come(
    served: Live, raw: bytes, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, is_free, step = list[int](), threading.Event(), Decoding.step

    def slow(self: Decoding) -> Any:
        steps.append(len(self.active))
        assert len(steps) < 2 or is_free.wait(PATIENCE_S)
        return step(self)

    long = raw_question(question.but(stream=b'"stream": true' in raw, max_new_tokens=200))
    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "step", slow)
        with served.connect() as connection:
            connection.sendall(long)
            wait_for(lambda: len(steps) == 2)
            assert served.state.engine.model_thread.running == 1, "also in the middle of a step"
        wait_for(lambda: served.in_flight == 0)
        is_free.set()
        wait_for(lambda: served.state.engine.model_thread.running == 0)
    assert len(steps) <= 3


def test_leaving_in_the_middle_of_a_stream(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, is_free, step = list[int](), threading.Event(), Decoding.step

    def slow(self: Decoding) -> Any:
        steps.append(len(self.active))
        assert len(steps) < 6 or is_free.wait(PATIENCE_S)
        return step(self)

    monkeypatch.setattr(Decoding, "step", slow)
    with served.connect() as connection:
        connection.sendall(raw_question(question.but(stream=True, max_new_tokens=200)))
        assert b"event: text" in read_until(connection, b"event: text")
        assert served.in_flight == 1
    wait_for(lambda: served.in_flight == 0)
    is_free.set()
    wait_for(lambda: served.state.engine.model_thread.running == 0)


def test_twenty_who_left_cost_the_next_one_nothing(
    served: Live, raw: bytes, question: Question, encoded: list[int]
) -> None:
    with served.busy():
        for _ in range(20):
            with served.connect() as connection:
                connection.sendall(raw)
                wait_for(lambda: served.in_flight == 1 and served.state.engine.model_thread.waiting >= 1)
            wait_for(lambda: served.in_flight == 0)
    until_ready(served.client)  # on a slow machine the held model thread was silent for too long
    assert question.post(served.client, "json").status_code == 200
    assert encoded == [1]


def test_places_are_never_lost(served: Live, raw: bytes, question: Question) -> None:
    for at in range(60):
        with served.connect() as connection:
            connection.sendall(raw[: len(raw) * (at % 10 + 1) // 10])
            time.sleep(0.001 * (at % 7))
    wait_for(lambda: served.in_flight == 0)
    answers = [question.post(served.client, "json").status_code for _ in range(PLACES)]
    assert answers == [200] * PLACES


def test_a_service_that_does_not_watch_would_be_found_out(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RequestContext, "_watch", lambda self, receive: asyncio.sleep(60))
    with served.busy():
        with served.connect() as connection:
            connection.sendall(raw_question(question))
            wait_for(lambda: served.state.engine.model_thread.waiting == 1)
        time.sleep(0.5)
        assert served.in_flight == 1
    wait_for(lambda: served.in_flight == 0)
