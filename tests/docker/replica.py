"""Replicas behind the proxy: a stub that says what reached it, or any ASGI app, served from a thread."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.loopback import PATIENCE_S, wait_for

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
EVENT_GAP_S = 0.3


@dataclass
class Stub:
    """Answer as the service would; the header X-Do asks for slow, (many) events, busy or budget."""

    name: str = "one"
    is_ready: bool = True
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0
    gone: int = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/readyz":
            await answer(send, 200 if self.is_ready else 503, {"status": "ready"})
            return
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["raw_path"].decode()))
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await self._act(self.headers.get("x-do", ""), receive, send)
        finally:
            self.in_flight -= 1

    async def _act(self, wish: str, receive: Receive, send: Send) -> None:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            size += len(message["body"])
            if not message.get("more_body"):
                break
        if wish == "slow":
            await self._until_gone(receive)
        elif wish.endswith("events"):
            await self._events(4 if wish == "events" else 1000, receive, send)
        elif wish in REFUSALS:
            status, code, wait = REFUSALS[wish]
            await answer(send, status, {"error": {"code": code}}, {"retry-after": wait})
        else:
            await answer(send, 200, {"replica": self.name, "size": size})

    async def _until_gone(self, receive: Receive) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await receive()
            self.gone += 1

    async def _events(self, events: int, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        leaving = asyncio.create_task(self._until_gone(receive))
        for number in range(events):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await asyncio.wait([leaving], timeout=EVENT_GAP_S)
            if leaving.done():
                return
        leaving.cancel()
        await send({"type": "http.response.body", "body": b""})


REFUSALS = {"busy": (503, "overloaded", b"7"), "budget": (429, "budget_exceeded", b"11")}


async def answer(send: Send, status: int, body: Any, more: dict[str, bytes] | None = None) -> None:
    """Send one JSON response."""
    headers = [(b"content-type", b"application/json"), (b"server", b"stub/1.2.3")]
    headers += [(name.encode(), value) for name, value in (more or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@contextmanager
def serving(app: Any, host: str, port: int) -> Iterator[None]:
    """Serve an ASGI app from a thread of this process."""
    config = uvicorn.Config(app, host=host, port=port, http="h11", log_level="critical", lifespan="auto")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
