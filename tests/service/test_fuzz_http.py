"""A short run of the fuzzer of `make fuzz` over a real socket, and twins that show what it would catch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import service.app
from service.errors import ServiceError
from tests.fuzz.http import CANARY, GOOD, attack, judge, run
from tests.service.live import Live, live

BODIES = 800
SETTINGS: dict[str, Any] = {"max_queue": 16, "max_batch": 8, "max_answer_tokens": 8}


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, **SETTINGS) as served:
        yield served


def test_bodies_of_all_kinds(served: Live) -> None:
    summary = run("127.0.0.1", served.port, BODIES, seed=5)
    assert not summary.failures, "\n".join(summary.lines())
    assert sum(summary.outcomes.values()) == BODIES
    assert len(summary.outcomes) > 12 and summary.outcomes["answered"] > BODIES // 20, summary.outcomes
    assert served.in_flight == 0


def test_good_bodies_are_answered(served: Live) -> None:
    for path, body in GOOD.items():
        assert served.client.post(path.rstrip("?"), json=body).status_code == 200, path


def test_attacks_reach_every_address_in_both_forms() -> None:
    rng = Random(1)
    seen = {
        (one.path.partition("?")[0].rstrip("/"), one.kind[:9]) for one in (attack(rng) for _ in range(400))
    }
    assert len({path for path, _ in seen}) == 4 and len(seen) >= 7


class Echo:
    """A planted fault: refusals that repeat what was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = bytearray()

        async def listen() -> Message:
            message = await receive()
            heard.extend(message.get("body", b""))
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [one for one in message["headers"] if one[0] != b"content-length"]
            elif message["body"].startswith(b'{"error"'):
                message["body"] += bytes(heard[:2000])
            await send(message)

        await self.app(scope, listen, answer)


def test_an_echo_is_caught(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = service.app.FastAPI.build_middleware_stack
    monkeypatch.setattr(service.app.FastAPI, "build_middleware_stack", lambda self: Echo(build(self)))
    with live(checkpoint, **SETTINGS) as served:
        summary = run("127.0.0.1", served.port, 100, seed=5)
    assert len(summary.failures) > 30, "\n".join(summary.lines())
    assert any("leaks" in sentence for sentence, _ in summary.failures)


def refusal_body(refusal: ServiceError, **changes: Any) -> bytes:
    body = refusal.body("abc")
    return json.dumps({"error": body["error"] | changes}, ensure_ascii=False).encode()


BAD = ServiceError("bad_request", reason="json")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, refusal_body(ServiceError("internal"))),
        (502, b""),
        (400, b"Bad Request"),
        (400, b"[]"),
        (400, refusal_body(BAD, message="The body is wrong.")),
        (400, refusal_body(BAD, field=CANARY)),
        (400, json.dumps({"error": BAD.body("abc")["error"] | {"field": CANARY}}).encode()),
        (400, refusal_body(BAD, input="x")),
        (422, refusal_body(BAD)),
        (400, refusal_body(BAD, request_id="other")),
        (400, refusal_body(BAD, choices=["x" * 5000])),
        (400, refusal_body(BAD, field="<_io.BytesIO object at 0x7f0011223344>")),
        (400, refusal_body(BAD, field="/tmp/upload")),
        (400, refusal_body(BAD, field="file-of-mine.png")),
    ],
    ids=range(14),
)
def test_the_judge_sees_what_is_wrong(status: int, body: bytes) -> None:
    assert judge("/vqa", 400, "abc", refusal_body(BAD)) is None
    assert judge("/vqa", status, "abc", body) is not None
