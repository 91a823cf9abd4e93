"""Nobody waits longer than they asked to, and late work is never begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from service.pipeline.images import decode_image
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import Question, running
from tests.service.live import Live, live
from tests.service.test_leaving import encoded as encoded
from tests.service.test_refusals import check
from vlm import Decoding

T = TypeVar("T")


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


def timed(served: Live, question: Question, form: str = "json") -> tuple[httpx.Response, float]:
    start = time.monotonic()
    return question.post(served.client, form), time.monotonic() - start


def late_in_the_middle(ask: Callable[[float], T], is_middle: Callable[[T], bool]) -> T:
    """Ask with deadlines that grow until one comes after the work had begun, however slow the machine is."""
    for timeout_s in (0.3, 3, 30):
        seen = ask(timeout_s)
        if is_middle(seen):
            return seen
    raise AssertionError("nothing had begun in 30 s")


def stuck_at_the_sixth_step(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], threading.Event]:
    """Let the decoder wait for an event in the middle of an answer; return its steps and the event."""
    steps, go_on, step = list[int](), threading.Event(), Decoding.step

    def slow(self: Decoding) -> object:
        steps.append(len(steps))
        assert len(steps) < 6 or go_on.wait(PATIENCE_S)
        return step(self)

    monkeypatch.setattr(Decoding, "step", slow)
    return steps, go_on


@pytest.mark.parametrize("stream", [False, True])
def test_waiting_ends_at_the_deadline(
    served: Live, question: Question, form: str, stream: bool, encoded: list[int]
) -> None:
    """And not before, nor with the model, which is busy for as long as we wait."""
    with served.busy():
        for timeout_s in (0.1, 0.4):
            response, took = timed(served, question.but(timeout_s=timeout_s, stream=stream), form)
            check(response, 504, "deadline_exceeded")
            assert timeout_s <= took < timeout_s + PATIENCE_S
            wait_for(lambda: served.in_flight == 0)
    assert question.post(served.client, form).status_code == 200
    assert encoded == [1], "what was late did not run"


def test_late_work_is_never_begun_however_many_wait(
    served: Live, question: Question, encoded: list[int]
) -> None:
    with ThreadPoolExecutor(5) as pool, served.busy():
        late = [pool.submit(timed, served, question.but(timeout_s=0.05 * n)) for n in range(1, 5)]
        patient = pool.submit(timed, served, question)
        assert {one.result()[0].status_code for one in late} == {504}
        assert not patient.done()
    assert patient.result()[0].status_code == 200
    assert encoded == [1]


def test_an_answer_ends_in_the_middle_at_its_deadline(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, answered = stuck_at_the_sixth_step(monkeypatch)
    response = late_in_the_middle(
        lambda timeout_s: question.but(timeout_s=timeout_s, max_new_tokens=200).post(served.client, "json"),
        lambda _: len(steps) >= 6,
    )
    check(response, 504, "deadline_exceeded")
    answered.set()
    wait_for(lambda: served.state.engine.model_thread.running == 0)
    assert len(steps) < 10


def test_a_stream_ends_with_an_error_event_at_its_deadline(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, answered = stuck_at_the_sixth_step(monkeypatch)
    request = question.but(max_new_tokens=200, stream=True)
    response = late_in_the_middle(
        lambda timeout_s: request.but(timeout_s=timeout_s).post(served.client, "json"),
        lambda response: response.status_code == 200 and response.text.startswith("event: text"),
    )
    answered.set()
    events = response.text.strip().split("\n\n")
    assert events[-1].startswith("event: error") and "deadline_exceeded" in events[-1]
    wait_for(lambda: served.in_flight == 0)


def test_a_request_may_ask_for_less_and_not_for_more(checkpoint: Path, question: Question) -> None:
    with live(checkpoint, request_timeout_s=0.3) as strict:
        with strict.busy():
            _, took = timed(strict, question.but(timeout_s=5 * PATIENCE_S))
            assert 0.3 <= took < PATIENCE_S
        wait_for(lambda: question.post(strict.client, "json").status_code == 200)


@pytest.mark.parametrize("wrong", [0, -1, 1e9, "soon", True, None])
def test_impossible_deadlines_are_refused(served: Live, question: Question, wrong: object) -> None:
    response = question.but(timeout_s=wrong).post(served.client, "json")
    if wrong is None:
        assert response.status_code == 200, "null means not sent"
    else:
        check(response, 422, "bad_timeout", "timeout_s")


def test_a_full_queue_costs_no_decoding(
    checkpoint: Path, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    monkeypatch.setattr("service.api.lifecycle.prepare", lambda *_: decoded.append(1))
    with running(checkpoint, depth_model="none", max_queue=0, max_batch=1) as client:
        admission = client.app.state.service.engine.admission  # type: ignore[attr-defined]
        with admission.acquire():
            for _ in range(10):
                response = question.post(client, "multipart")
                check(response, 503, "overloaded")
                assert int(response.headers["retry-after"]) >= 1
    assert decoded == []


def test_the_deadline_holds_while_images_are_decoded(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    answered = threading.Event()

    def slow(*given: Any) -> object:
        decoded.append(1)
        assert answered.wait(PATIENCE_S)
        return decode_image(*given)

    monkeypatch.setattr("service.pipeline.prepare.decode_image", slow)
    many = question.but(images=question.images * 3, depths=(), method="none")
    response = late_in_the_middle(
        lambda timeout_s: many.but(timeout_s=timeout_s).post(served.client, "json"), lambda _: bool(decoded)
    )
    check(response, 504, "deadline_exceeded")
    answered.set()
    time.sleep(0.3)
    assert decoded == [1], "the other images were not decoded any more"


def test_a_deadline_beyond_all_says_the_limit(served: Live, question: Question, form: str) -> None:
    error = question.but(timeout_s=1e9).post(served.client, form).json()["error"]
    assert (error["code"], error["field"], error["limit"]) == ("bad_timeout", "timeout_s", 86_400)
    assert "timeout_s" in error["message"] and "86400" in error["message"]
