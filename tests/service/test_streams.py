"""Server-sent events: text as it comes, then the same answer that a plain request gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.pipeline.response_models import VqaResponse
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question, read_until
from tests.service.test_refusals import check
from vlm import Decoding

Event = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


def events_of(text: str) -> list[Event]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


@pytest.mark.parametrize("method", ["none", "tome", "tosa"])
def test_a_stream_says_what_a_plain_answer_says(
    served: Live, question: Question, form: str, method: str
) -> None:
    request = question.but(max_new_tokens=12, method=method)
    plain = request.post(served.client, form).json()
    response = request.but(stream=True).post(served.client, form)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    *texts, (last, answer) = events_of(response.text)
    assert last == "answer" and {name for name, _ in texts} == {"text"}
    assert "".join(data["text"] for _, data in texts) == answer["answer"] == plain["answer"]
    assert len(texts) > 1
    VqaResponse.model_validate(answer)
    assert (answer["merge"], answer["usage"]) == (plain["merge"], plain["usage"])
    assert answer["request_id"] == response.headers["x-request-id"]
    wait_for(lambda: served.in_flight == 0)


def test_text_comes_while_the_answer_is_still_being_made(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder waits in the middle until the first piece has been read."""
    step, steps, is_read = Decoding.step, list[int](), threading.Event()

    def slow(self: Decoding) -> Any:
        steps.append(1)
        assert len(steps) != 5 or is_read.wait(PATIENCE_S)
        return step(self)

    monkeypatch.setattr(Decoding, "step", slow)
    with served.connect() as connection:
        connection.sendall(raw_question(question.but(stream=True, max_new_tokens=12)))
        read_until(connection, b"event: text")
        assert len(steps) <= 5, "the first piece was there long before the last token"
        is_read.set()
        read_until(connection, b"event: answer")
    assert len(steps) > 5


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"question": " "}, "empty_question", "question"),
        ({"method": "tome", "keep_ratio": 0.001}, "keep_ratio_out_of_range", "keep_ratio"),
        ({"images": (b"no image",)}, "bad_image", "image"),
    ],
)
def test_what_is_refused_before_the_first_word_is_an_http_status(
    served: Live, question: Question, changes: dict[str, Any], code: str, field: str
) -> None:
    check(question.but(stream=True, **changes).post(served.client, "json"), 422, code, field)


def test_what_fails_after_the_first_word_is_an_event(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Decoding.step

    def breaks(self: Decoding) -> Any:
        if len(self.rows[0].token_ids) == 3:
            raise RuntimeError("secret at 0xdeadbeef")
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "step", breaks)
        response = question.but(stream=True, max_new_tokens=12).post(served.client, "json")
    events = events_of(response.text)
    assert response.status_code == 200 and events[0][0] == "text"
    name, data = events[-1]
    assert name == "error" and data["error"]["code"] == "internal"
    assert "secret" not in response.text and "secret" in caplog.text
    wait_for(lambda: served.in_flight == 0)
    assert question.post(served.client, "json").status_code == 200


def test_a_long_answer_holds_nobody_up(
    served: Live, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one answer of many tokens is decoded, a short one comes and goes."""
    step, is_answered = Decoding.step, threading.Event()

    def slow(self: Decoding) -> Any:
        is_answered.wait(0.05)
        return step(self)

    monkeypatch.setattr(Decoding, "step", slow)
    with served.connect() as connection:
        connection.sendall(raw_question(question.but(stream=True, max_new_tokens=200, seed=1, temperature=2)))
        read_until(connection, b"event: text")
        assert question.but(max_new_tokens=2).post(served.client, "json").status_code == 200
        assert served.in_flight == 1, "the long one still runs"
        is_answered.set()
