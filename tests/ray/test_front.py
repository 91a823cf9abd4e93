"""What stands before the replicas, on applications that fail as Ray's proxy does; needs no Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ray_serve.front import Front
from service.settings import Settings

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]
MIB = 2**20
SCOPE: Scope = {"type": "http", "method": "POST", "path": "/vqa", "headers": []}


async def dies(scope: Scope, receive: Receive, send: Send) -> None:
    """End without a word, as Ray's proxy does for what it calls a 500."""
    await receive()


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the proxy itself")


async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    headers = {key.decode(): value.decode() for key, value in scope["headers"]}
    await JSONResponse({"length": len(body), "headers": headers})(scope, receive, send)


async def streams_and_dies(scope: Scope, receive: Receive, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    )
    await send({"type": "http.response.body", "body": b"event: text\n\n", "more_body": True})


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    parts = (f"event: {n}\n\n" for n in range(3))
    await StreamingResponse(parts, media_type="text/event-stream")(scope, receive, send)


def says(text: str, status: int, **headers: str) -> Answer:
    return PlainTextResponse(text, status, {name.replace("_", "-"): value for name, value in headers.items()})


class Turns:
    """Answer the first request with the first application, and so on."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.requests = list(answers), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await self.answers[min(self.requests, len(self.answers)) - 1](scope, receive, send)


class Heard:
    """Collect what was sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    @property
    def headers(self) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in self.messages[0]["headers"]}

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages[1:]).decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    app: ASGIApp,
    body: bytes | list[bytes] = b"{}",
    *,
    path: str = "/vqa",
    leaves: bool = False,
    **headers: str,
) -> Heard:
    heard = Heard()
    chunks = [body] if isinstance(body, bytes) else body
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": chunk is not chunks[-1]} for chunk in chunks
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        if not leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    named = {
        "content-type": "application/json",
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(key.encode(), value.encode()) for key, value in named.items()],
    }
    asyncio.run(asyncio.wait_for(_run(app, scope, receive, heard), 60))
    return heard


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def front(app: ASGIApp, **settings: Any) -> Front:
    return Front(app, Settings(**settings))


@pytest.mark.parametrize("failing", [dies, raises])
def test_a_lost_request_is_asked_once_more_with_its_body(failing: Answer) -> None:
    turns = Turns(failing, echoes)
    heard = ask(front(turns), [b"abc", b"def"])
    assert (heard.status, heard.json["length"], turns.requests) == (200, 6, 2)


def test_without_the_front_it_is_lost() -> None:
    """The twin."""
    assert ask(Turns(dies, echoes)).status is None


def test_a_request_lost_twice_is_refused_and_not_run_again() -> None:
    turns = Turns(dies)
    guarded = front(turns)
    heard = ask(guarded, b"poison")
    assert (heard.status, heard.json["error"]["code"]) == (503, "replica_lost")
    assert heard.headers["retry-after"] == "1"
    again = ask(guarded, b"poison")
    assert (again.status, turns.requests) == (503, 2)
    assert int(again.headers["retry-after"]) > 500
    ask(guarded, b"another")
    assert turns.requests == 4


def test_nobody_is_asked_again_for_a_client_that_left() -> None:
    async def notices(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    turns = Turns(notices)
    assert ask(front(turns), leaves=True).messages == []
    assert turns.requests == 1


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    turns = Turns(streams_and_dies)
    heard = ask(front(turns))
    assert turns.requests == 1
    assert heard.text.startswith("event: text\n\nevent: error\ndata: {")
    assert json.loads(heard.text.split("data: ")[1])["error"]["code"] == "replica_lost"


def test_a_whole_stream_passes_untouched() -> None:
    assert ask(front(streams)).text == "event: 0\n\nevent: 1\n\nevent: 2\n\n"


@pytest.mark.parametrize(
    ("status", "headers", "expected", "code"),
    [
        (503, {"retry_after": "7"}, 503, "overloaded"),
        (429, {"retry_after": "7"}, 503, "overloaded"),
        (503, {}, 503, "not_ready"),
        (404, {}, 503, "not_ready"),
        (408, {}, 504, "deadline_exceeded"),
    ],
)
def test_rays_own_words_become_ours(status: int, headers: dict[str, str], expected: int, code: str) -> None:
    heard = ask(front(says("Request dropped by actor 0x7f", status, **headers)))
    assert (heard.status, heard.json["error"]["code"]) == (expected, code)
    assert heard.headers["content-length"] == str(len(heard.text))
    assert "actor" not in heard.text
    assert heard.headers.get("retry-after") == ("7" if headers else "5" if expected == 503 else None)


def test_plain_text_that_is_no_refusal_passes() -> None:
    assert ask(front(says("# HELP requests", 200))).text == "# HELP requests"


def test_a_body_is_counted_while_it_arrives() -> None:
    turns = Turns(echoes)
    guarded = front(turns, max_body_mib=1)
    heard = ask(guarded, [b"x" * MIB, b"x"])
    assert (heard.status, heard.json["error"]["limit"], turns.requests) == (413, MIB, 0)
    assert ask(guarded, b"", content_length=str(MIB + 1)).status == 413
    assert ask(guarded, b"x" * MIB).json["length"] == MIB


def test_all_bodies_together_have_a_bound_and_give_their_room_back() -> None:
    guarded = front(echoes)
    guarded._bodies.limit = 10
    heard = ask(guarded, b"x" * 11)
    assert (heard.status, heard.json["error"]["code"], heard.headers["retry-after"]) == (
        503,
        "overloaded",
        "1",
    )
    for _ in range(3):
        assert ask(guarded, b"x" * 10).status == 200


def test_the_body_that_arrives_longest_makes_room() -> None:
    """A client that stalls keeps nobody else out."""

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def whole() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def both() -> tuple[Heard, Heard]:
        guarded, scope = front(echoes, max_arriving=1), dict(SCOPE)
        stalled, quick = Heard(), Heard()
        first = asyncio.create_task(guarded(scope, never, stalled))
        await asyncio.sleep(0)
        await guarded(scope, whole, quick)
        await asyncio.wait_for(first, 60)
        return stalled, quick

    stalled, quick = asyncio.run(both())
    assert (stalled.status, stalled.json["error"]["code"]) == (503, "overloaded")
    assert quick.status == 200


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    heard = Heard()
    asyncio.run(front(echoes, body_timeout_s=0.05)(dict(SCOPE), never, heard))
    assert (heard.status, heard.json["error"]["code"]) == (408, "request_timeout")


def test_rays_switches_are_not_for_clients() -> None:
    guarded = front(echoes, request_timeout_s=10)
    heard = ask(guarded, x_request_timeout_seconds="0", x_request_disconnect_disabled="?1")
    headers = heard.json["headers"]
    assert 10 < float(headers["x-request-timeout-seconds"]) <= 15
    assert "x-request-disconnect-disabled" not in headers


@pytest.mark.parametrize(("path", "status"), [("/-/routes", 404), ("/-/healthz", 200), ("/vqa", 200)])
def test_of_rays_addresses_only_its_probe_is_served(path: str, status: int) -> None:
    assert ask(front(echoes), path=path).status == status


PAGE = "https://demo.example"
REFUSALS: dict[str, tuple[Answer, bytes, str]] = {
    "too large": (echoes, b"x" * (MIB + 1), "/vqa"),
    "no such address": (echoes, b"", "/-/routes"),
    "lost": (dies, b"poison", "/vqa"),
    "rays own": (says("Service Unavailable", 503), b"{}", "/v1/chat/completions"),
}


@pytest.mark.parametrize(("app", "body", "path"), REFUSALS.values(), ids=REFUSALS)
def test_an_allowed_page_may_read_what_is_refused_here(app: Answer, body: bytes, path: str) -> None:
    opened = front(app, cors_origins=PAGE, max_body_mib=1)
    heard = ask(opened, body, path=path, origin=PAGE)
    assert heard.status != 200 and "error" in heard.json
    assert heard.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-ID" in heard.headers["access-control-expose-headers"]
    closed = ask(front(app, max_body_mib=1), body, path=path)
    assert "access-control-allow-origin" not in closed.headers


def test_what_a_replica_says_of_origins_is_said_once() -> None:
    said = {"access_control_allow_origin": PAGE, "vary": "Origin"}
    heard = ask(front(says("[]", 200, **said), cors_origins=PAGE), origin=PAGE)
    names = [key for key, _ in heard.messages[0]["headers"]]
    assert names.count(b"access-control-allow-origin") == 1 and heard.headers["vary"] == "Origin"
    other = ask(front(says("[]", 200, vary="Accept"), cors_origins=PAGE), origin=PAGE)
    assert other.headers["vary"] == "Accept, Origin"


def test_a_page_of_another_origin_is_refused_before_its_body_is_read() -> None:
    turns = Turns(echoes)
    for settings in ({}, {"cors_origins": PAGE}):
        heard = ask(front(turns, **settings), b"x", origin="https://evil.example", host="robots.example")
        assert (heard.status, heard.json["error"]["code"], turns.requests) == (403, "origin_refused", 0)
        assert "access-control-allow-origin" not in heard.headers
    assert ask(front(turns), b"x", origin="https://robots.example", host="robots.example").status == 200


def test_an_answer_has_one_request_id() -> None:
    doubled = says("[]", 200)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def twice(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *2 * [(b"x-request-id", b"one")]]}
            await send(message)

        await doubled(scope, receive, twice)

    heard = ask(front(app))
    assert [value for key, value in heard.messages[0]["headers"] if key == b"x-request-id"] == [b"one"]
