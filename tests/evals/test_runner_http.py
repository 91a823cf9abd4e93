"""Asking a server: it may be busy, refuse one question, or be gone. The server is a function here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from evals.runners import over_http
from evals.runners.answerers import Answer, HttpAnswerer, RunError
from evals.runners.items import DatasetError, Item
from evals.runners.run import answers

MODEL = {"id": "tiny", "revision": "1"}
BODY = {
    "model": MODEL,
    "answer": "yes",
    "merge": {},
    "depth": None,
    "usage": {},
    "finish_reason": "stop",
    "cached": False,
    "batch_size": 1,
    "timings_ms": {},
}
Handler = Callable[[httpx.Request, str], httpx.Response]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time."""
    made: list[float] = []

    async def note(seconds: float) -> None:
        made.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(over_http, "sleep", note)  # not asyncio's own: other loops may run in this process
    return made


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    image = tmp_path / "image.jpg"
    image.write_bytes(b"pixels")
    return [Item(str(number), f"question {number}?", (image,)) for number in range(4)]


def server(handle: Handler) -> httpx.MockTransport:
    """Answer /v1/models, and let `handle` answer /vqa, knowing which question it is."""

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{**MODEL, "object": "model"}]})
        number = request.content.split(b"question ")[1].split(b"?")[0].decode()
        return handle(request, number)

    return httpx.MockTransport(respond)


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"code": code, "message": "No.", "request_id": "r"}
    return httpx.Response(status, json={"error": error}, headers=headers)


def asked(handle: Handler, items: list[Item], **more: Any) -> dict[str, Answer]:
    answerer = HttpAnswerer("http://server", {}, transport=server(handle), **more)
    return {answer.id: answer for answer in answerer.answer(items)}


def test_a_question_is_sent_as_a_form(items: list[Item], tmp_path: Path) -> None:
    depth = tmp_path / "depth.png"
    depth.write_bytes(b"distances")
    with_depth = Item("0", "question 0?", items[0].images, (depth,), "scannet", 7)
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request, number: str) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=BODY)

    spec = {"method": "tosa", "r": [8], "prop_attn": False, "options": {"a": 1}}
    answerer = HttpAnswerer("http://server", spec, api_key="secret", transport=server(handle))
    (answer,) = answerer.answer([with_depth])
    assert (answer.text, answer.code) == ("yes", None) and "answer" not in answer.report
    assert seen[0].headers["Authorization"] == "Bearer secret"
    body = seen[0].content
    for name, value in {
        "question": b"question 0?",
        "max_new_tokens": b"7",
        "depth_preset": b"scannet",
        "method": b"tosa",
        "r": b"[8]",
        "prop_attn": b"false",
        "options": b'{"a": 1}',
    }.items():
        assert b'name="%b"\r\n\r\n%b\r\n' % (name.encode(), value) in body
    assert b'name="image"; filename="image0"' in body and b"pixels" in body
    assert b'name="depth"; filename="depth0"' in body and b"distances" in body
    assert answerer.settings == {"model": MODEL, "spec": spec}


@pytest.mark.parametrize("status", [429, 502, 503])
def test_not_now_is_asked_again_after_the_pause_the_server_wants(
    status: int, items: list[Item], pauses: list[float]
) -> None:
    tries: Counter[str] = Counter()

    def handle(request: httpx.Request, number: str) -> httpx.Response:
        tries[number] += 1
        wants = (
            {"Retry-After": "7"} if tries[number] == 1 else {"Retry-After": "Fri, 20 Nov 2026 20:00:00 GMT"}
        )
        return refusal(status, "overloaded", **wants) if tries[number] < 3 else httpx.Response(200, json=BODY)

    assert all(answer.text == "yes" for answer in asked(handle, items).values())
    assert Counter(pauses) == {7.0: 4, 1.0: 4} and set(tries.values()) == {3}


def test_a_server_that_stays_busy_ends_the_run(items: list[Item]) -> None:
    with pytest.raises(RunError, match="busy for too long: 503 No"):
        asked(lambda *_: refusal(503, "overloaded"), items, patience_s=-1)


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (refusal(422, "bad_image"), "bad_image"),
        (refusal(504, "deadline_exceeded"), "deadline_exceeded"),
        (refusal(503, "no_estimator"), "no_estimator"),  # it will not be there later either
        (httpx.Response(500, text="<html>"), "http_500"),
    ],
)
def test_one_refused_question_does_not_end_the_run(
    response: httpx.Response, code: str, items: list[Item], tmp_path: Path
) -> None:
    def handle(request: httpx.Request, number: str) -> httpx.Response:
        return response if number == "2" else httpx.Response(200, json=BODY)

    answerer = HttpAnswerer("http://server", {}, transport=server(handle))
    found = answers(items, answerer, tmp_path / "answers.jsonl")
    assert {id_: answer.code for id_, answer in found.items()} == {"0": None, "1": None, "2": code, "3": None}


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_every_question_would_meet_ends_the_run(status: int, items: list[Item]) -> None:
    with pytest.raises(RunError, match=f"{status} No."):
        asked(lambda *_: refusal(status, "unauthorized"), items)


def test_a_dead_server_ends_the_run_and_what_was_answered_stays(items: list[Item], tmp_path: Path) -> None:
    out, is_dead = tmp_path / "answers.jsonl", True

    def handle(request: httpx.Request, number: str) -> httpx.Response:
        if is_dead and number == "2":
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=BODY)

    def ask() -> dict[str, Answer]:
        return answers(items, HttpAnswerer("http://server", {}, 1, transport=server(handle)), out)

    with pytest.raises(RunError, match=r"cannot be reached \(refused\).*run the same command again"):
        ask()
    assert len(out.read_text().splitlines()) == 1 + 2
    is_dead = False
    assert len(ask()) == 4


def test_a_connection_lost_once_is_made_again(items: list[Item], pauses: list[float]) -> None:
    lost = iter([httpx.RemoteProtocolError("closed")])

    def handle(request: httpx.Request, number: str) -> httpx.Response:
        for error in lost:
            raise error
        return httpx.Response(200, json=BODY)

    assert len(asked(handle, items)) == 4 and pauses == [0.5]


def test_a_server_that_is_none_of_ours_is_refused(items: list[Item]) -> None:
    with pytest.raises(RunError, match="does not answer as this service does"):
        asked(lambda *_: httpx.Response(200, json={"answer": "yes"}), items)
    with pytest.raises(RunError, match="another model, other"):
        asked(lambda *_: httpx.Response(200, json={**BODY, "model": {"id": "other", "revision": "1"}}), items)
    nothing = httpx.MockTransport(lambda _: httpx.Response(404, text="nothing"))
    with pytest.raises(RunError, match="/v1/models: 404"):
        HttpAnswerer("http://server", {}, transport=nothing)
    strange = httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
    with pytest.raises(RunError, match="does not answer as this service does"):
        HttpAnswerer("http://server", {}, transport=strange)
    with pytest.raises(RunError, match="is no address"):
        HttpAnswerer("http://server:port", {})


def test_a_file_that_is_gone_ends_the_run(items: list[Item], tmp_path: Path) -> None:
    gone = Item("9", "question 9?", (tmp_path / "gone.jpg",))
    with pytest.raises(DatasetError, match=r"gone\.jpg: No such file"):
        asked(lambda *_: httpx.Response(200, json=BODY), [*items, gone])


def test_no_more_questions_than_wanted_are_on_the_way(items: list[Item]) -> None:
    inside = most = 0

    async def respond(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        models = request.url.path == "/v1/models"
        while not models and most < 2:  # the second may take its time to come
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        inside -= 1
        return httpx.Response(200, json={"data": [MODEL]} if models else BODY)

    answerer = HttpAnswerer("http://server", {}, 2, transport=httpx.MockTransport(respond))
    assert len(list(answerer.answer(items))) == 4 and most == 2
