"""Bodies that wait in Ray's HTTP proxy: how much they may take together, and which frame they are about.

Nothing is parsed or checked here: a wrong name of a frame costs an encoding, never a wrong answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from service.api.arrivals import Arrival, Arrivals
from service.errors import ServiceError
from service.settings import Settings

EPISODE = "episode:"
"""What the name of an episode begins with, beside those of frames."""
HELD_BYTES = 512 * 2**20
_FIRST_IMAGE = re.compile(rb'"images?"\s*:\s*\[?\s*"|"data:image/[^"]{0,32};base64,')
_IMAGE_PART = re.compile(rb'[; ]name="?image"?[;\r]')
_EPISODE_PATH = re.compile(r"/episodes/([0-9a-f]{32})(?:/|$)")
_EPISODE_FIELD = re.compile(rb'"episode"\s*:\s*"([0-9a-f]{32})"')
_BOUNDARY = re.compile(r'boundary="?([^";]{1,70})')


class Body:
    """Hand a body that is already here to as many readers as ask, each in turn."""

    def __init__(self, data: bytes, receive: Receive) -> None:
        self.data = data
        self.is_abandoned = False
        self._receive = receive

    @property
    def receive(self) -> Receive:
        """Return a fresh reader: the whole body first, then what the client does."""
        is_read = False

        async def next_message() -> Message:
            nonlocal is_read
            if not is_read:
                is_read = True
                return {"type": "http.request", "body": self.data, "more_body": False}
            message = await self._receive()
            self.is_abandoned |= message["type"] == "http.disconnect"
            return message

        return next_message


class Bodies:
    """Count the bytes that all requests of this process hold."""

    def __init__(self, settings: Settings, held_bytes: int = HELD_BYTES) -> None:
        self.settings, self.limit, self.held = settings, held_bytes, 0
        self.arrivals = Arrivals(settings.max_arriving, settings.max_arriving_bytes)

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Give back, at the end, whatever was read in between."""
        room = Room(self)
        try:
            yield room
        finally:
            self.held -= room.taken


class Room:
    """Hold what one request takes."""

    def __init__(self, bodies: Bodies) -> None:
        self._all, self.taken = bodies, 0

    async def read(self, scope: Scope, receive: Receive) -> Body | None:
        """Read a body, counting while it arrives; None if the client leaves.

        Raises ServiceError body_too_large, request_timeout, overloaded.
        """
        settings = self._all.settings
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > settings.max_body_bytes:
            raise ServiceError("body_too_large", limit=settings.max_body_bytes)
        is_crowded = False

        def refuse() -> None:
            nonlocal is_crowded
            is_crowded = True
            limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(settings.body_timeout_s) as limit:
                with self._all.arrivals.enter(refuse) as arrival:
                    return await self._read(receive, arrival)
        except TimeoutError:
            if is_crowded:
                raise ServiceError("overloaded", retry_after_s=1) from None
            raise ServiceError("request_timeout") from None

    async def _read(self, receive: Receive, arrival: Arrival) -> Body | None:
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            self._take(chunks, chunk)
            arrival.add(len(chunk))
            if not message.get("more_body", False):
                return Body(b"".join(chunks), receive)

    def _take(self, chunks: list[bytes], chunk: bytes) -> None:
        chunks.append(chunk)
        self.taken += len(chunk)
        self._all.held += len(chunk)
        if self.taken > self._all.settings.max_body_bytes:
            raise ServiceError("body_too_large", limit=self._all.settings.max_body_bytes)
        if self._all.held > self._all.limit:
            raise ServiceError("overloaded", retry_after_s=1)


def frame_name(content_type: str, body: bytes) -> str:
    """Return a digest of the first image of a body as it was sent, or nothing if none is found."""
    boundary = _BOUNDARY.search(content_type)
    start, end = _in_parts(body, boundary[1].encode()) if boundary else _in_json(body)
    return sha256(memoryview(body)[start:end]).hexdigest() if 0 <= start < end else ""


def episode_name(path: str, body: bytes) -> str:
    """Return the id of the episode that a request is about, or nothing: of its address, or of a chat."""
    found = _EPISODE_PATH.match(path)
    if found is None and path == "/v1/chat/completions":
        in_body = _EPISODE_FIELD.search(body)
        return in_body[1].decode() if in_body else ""
    return found[1] if found else ""


def _in_parts(body: bytes, boundary: bytes) -> tuple[int, int]:
    part = _IMAGE_PART.search(body)
    blank = body.find(b"\r\n\r\n", part.end() - 1) if part else -1
    return (blank + 4, body.find(b"\r\n--" + boundary, blank)) if blank >= 0 else (-1, -1)


def _in_json(body: bytes) -> tuple[int, int]:
    image = _FIRST_IMAGE.search(body)
    return (image.end(), body.find(b'"', image.end())) if image else (-1, -1)
