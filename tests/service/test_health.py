"""Ready means able to answer: a model thread that hangs or dies is noticed, and a drain is announced.

Long silence is not waited for: the last heartbeat of the model thread is put back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.engine.vision_stage
from service.api.state import STALLED
from service.app import create_app
from service.engine.model_thread import TICK_S, ModelThread
from service.settings import Settings
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import LIMITS, Question, until_ready
from tests.service.live import Live, live
from tests.service.test_refusals import check


class Ended(threading.Event):
    """The exit code a process was asked to end with."""

    code: int | None = None

    def __call__(self, code: int) -> None:
        self.code = code
        self.set()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def mortal(checkpoint: Path, ended: Ended) -> Iterator[TestClient]:
    settings = Settings(model=str(checkpoint), depth_model="none", **LIMITS)
    with TestClient(create_app(settings, ended)) as client:
        until_ready(client)
        yield client


def let_pass(thread: ModelThread, seconds: float) -> None:
    """Let seconds pass since the last heartbeat of one model thread; others in this process go on."""
    thread._last_heartbeat -= seconds


def thread_of(client: TestClient) -> ModelThread:
    return client.app.state.service.engine.model_thread  # type: ignore[attr-defined]


def test_an_idle_service_stays_ready(mortal: TestClient) -> None:
    """It gives a sign of life now and then, several in the time after which it would not count as ready."""
    for _ in range(3):
        let_pass(thread_of(mortal), 6 * PATIENCE_S)
        wait_for(lambda: mortal.get("/readyz").status_code == 200)
    assert Settings().stall_timeout_s > 4 * TICK_S


def test_a_model_thread_that_hangs_makes_the_service_unready_and_then_end(
    mortal: TestClient, ended: Ended
) -> None:
    release, hangs = threading.Event(), threading.Event()
    thread = thread_of(mortal)
    thread.run(lambda: (hangs.set(), release.wait()))
    try:
        assert hangs.wait(PATIENCE_S) and mortal.get("/readyz").status_code == 200
        let_pass(thread, 6 * PATIENCE_S)
        message = check(mortal.get("/readyz"), 503, "not_ready")["message"]
        assert "has not been heard of" in message
        assert mortal.get("/livez").status_code == 200 and not ended.is_set()
        let_pass(thread, 6 * PATIENCE_S)
        assert ended.wait(PATIENCE_S) and ended.code == STALLED
    finally:
        release.set()


def test_a_short_silence_passes(checkpoint: Path) -> None:
    with live(checkpoint, stall_exit_s=0) as served:
        with served.busy() as release:
            let_pass(served.state.engine.model_thread, 6 * PATIENCE_S)
            assert served.client.get("/readyz").status_code == 503 and not release.is_set()
        wait_for(lambda: served.client.get("/readyz").status_code == 200)


def test_a_model_thread_that_dies_answers_nobody_and_ends_the_process(
    mortal: TestClient, ended: Ended, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.vision_stage, "frame_visuals", lost)
        check(question.post(mortal, "json"), 503, "not_ready")
    assert ended.wait(PATIENCE_S) and ended.code == STALLED
    check(mortal.get("/readyz"), 503, "not_ready")
    check(question.post(mortal, "json"), 503, "not_ready")
    assert mortal.get("/livez").status_code == 200


def test_those_who_wait_for_a_thread_that_dies_are_told(
    checkpoint: Path, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with live(checkpoint, max_queue=8) as served, ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(service.engine.vision_stage, "frame_visuals", lost)
        with served.busy():
            waiting = [
                pool.submit(question.but(method=method).post, served.client, "json")
                for method in ("none", "tome", "tosa", "random")
            ]
            wait_for(lambda: served.state.engine.model_thread.waiting == 4)
        for one in waiting:
            check(one.result(PATIENCE_S), 503, "not_ready")


def test_draining_is_announced_at_once_and_requests_are_still_served_for_a_while(
    checkpoint: Path, question: Question
) -> None:
    with live(checkpoint, drain_pause_s=10 * PATIENCE_S) as served:
        served.client.get("/livez")
        _in_loop(served, served.state.drain)
        check(served.client.get("/readyz"), 503, "draining")
        assert question.post(served.client, "json").status_code == 200
    with live(checkpoint, drain_pause_s=0.1) as served:
        _in_loop(served, served.state.drain)
        wait_for(lambda: question.post(served.client, "json").status_code == 503)
        check(served.client.get("/readyz"), 503, "draining")
        response = question.post(served.client, "json")
        check(response, 503, "draining")
        assert int(response.headers["retry-after"]) >= 1
        assert served.client.get("/livez").status_code == 200


def test_who_is_still_there_when_the_time_to_drain_is_over_is_refused(
    checkpoint: Path, question: Question
) -> None:
    with live(checkpoint) as served, ThreadPoolExecutor(1) as pool, served.busy():
        waiting = pool.submit(question.post, served.client, "json")
        wait_for(lambda: served.in_flight == 1)
        _in_loop(served, served.state.abort_open_requests)
        response = waiting.result(PATIENCE_S)
        check(response, 503, "draining")
        assert response.headers["retry-after"] == "1"
        check(question.post(served.client, "json"), 503, "draining")


def _in_loop(served: Live, work: Any) -> None:
    """Run work in the event loop of a service, as a signal handler does."""
    done = threading.Event()
    served.loop.call_soon_threadsafe(lambda: (work(), done.set()))
    assert done.wait(PATIENCE_S)
