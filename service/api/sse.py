"""A response of server-sent events; it holds the request's slot until the last event is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.request_context import RequestContext
from service.api.serialise import ascii_json
from service.errors import ServiceError
from service.errors.translation import to_service_error

MEDIA_TYPE = "text/event-stream"
HEADERS: Mapping[str, str] = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of a stream: caches do not store it and proxies do not buffer it (nginx reads the second)."""
DONE = b"data: [DONE]\n\n"
"""The end of a stream of chat chunks."""

Name = Literal["text", "answer", "error"]


def event(name: Name, data: BaseModel | Mapping[str, Any]) -> bytes:
    """Encode one event of a /vqa stream."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), ascii_json(data))


def text_event(delta: str) -> bytes:
    """Encode a piece of the answer of a /vqa stream."""
    return event("text", {"text": delta})


def chunk_event(data: BaseModel | Mapping[str, Any]) -> bytes:
    """Encode one chunk of a chat stream; an error is one too."""
    return b"data: %s\n\n" % ascii_json(data)


log = logging.getLogger("tosa_vqa")

LAST_WORDS_S = 1.0
"""Time for a client to read the end of a stream, so that a stalled client cannot hold its slot for ever."""


class EventStream(Response):
    """Send events as they arrive. The RequestContext detects a disconnect, not this class."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        context: RequestContext,
        first: bytes,
        events: AsyncIterator[bytes],
        on_error: Callable[[ServiceError], bytes],
        held: AsyncExitStack,
    ) -> None:
        super().__init__(headers=dict(HEADERS))
        del self.headers["content-length"]
        self._context, self._first, self._events = context, first, events
        self._on_error, self._held = on_error, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._held:
                await self._send_all(send)
        except ClientDisconnect:
            raise
        except Exception as error:  # the stream has already sent the error to the client
            if to_service_error(error).code == "internal":
                log.error("a stream broke (request %s)", self._context.request_id, exc_info=error)

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await self._context.wait(send(start))
        await self._event(send, self._first)
        self._context.where = "stream"
        try:
            async for event in self._events:
                await self._event(send, event)
        except ClientDisconnect:
            raise
        except Exception as error:
            with suppress(ClientDisconnect):
                await self._end(send, self._on_error(to_service_error(error)))
            raise
        await self._end(send, b"")

    async def _end(self, send: Send, last: bytes) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await send(_body(last, more=False))
        except TimeoutError:  # a client that does not read the end counts as disconnected
            raise ClientDisconnect from None

    async def _event(self, send: Send, event: bytes) -> None:
        await self._context.wait(send(_body(event)))


def _body(data: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def stream(
    context: RequestContext,
    events: AsyncIterator[bytes],
    on_error: Callable[[ServiceError], bytes],
    stack: AsyncExitStack,
) -> EventStream:
    """Return a stream after its first event, so that an early error still sets the HTTP status."""
    first = await anext(events)
    return EventStream(context, first, events, on_error, stack.pop_all())
