"""One HTTP connection: no client keeps the event loop busy, sends without end, or trickles a head for ever.

Uvicorn's own protocol, with what it leaves open: it takes whatever arrives in one piece, discards a refused
body for as long as it comes, and waits for a request without a limit. Knows no addresses and no bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from time import perf_counter
from typing import ClassVar, Literal
from uuid import uuid4
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

PIECE_BYTES, CHUNKED_PIECE_BYTES = 64 * 1024, 4 * 1024
"""What is parsed at once: a chunked body may hold an event in every six bytes."""
SHORT_BYTES = 512
"""What is parsed at once as it comes, a probe for example."""
TURN_S = 0.005
HEAD_S = 10.0
"""Time for a request's head to arrive, from when the connection is free for it."""
LINGER_S, LINGER_BYTES = 5.0, 64 * 2**20
"""What is still taken of a body that was refused, so that its sender gets to read the answer."""

log = logging.getLogger("tosa_vqa")

Wait = Literal["head", "linger"] | None


class _Turns:
    """Let connections parse what has arrived one after the other, for a few milliseconds at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Connection] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Let a connection parse in one of the next turns."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            loop.call_soon(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        end = perf_counter() + TURN_S
        while self._waiting:
            connection = self._waiting[0]
            try:
                is_done = connection.parse()
            except Exception:  # the others must have their turns all the same
                log.exception("a connection could not be read")
                connection.transport.abort()
                is_done = True
            self._waiting.rotate(-1)
            if is_done:
                self._waiting.pop()
            if perf_counter() > end:
                break
        if self._waiting:
            loop.call_soon(self._run, loop)


class _Flow(FlowControl):
    """Read nothing more while what was read waits to be parsed, whatever the application wants."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._is_behind = False

    def resume_reading(self) -> None:
        if self._is_behind:
            self.read_paused = False
        else:
            super().resume_reading()

    def fall_behind(self) -> None:
        self._is_behind = True
        self._transport.pause_reading()

    def catch_up(self) -> None:
        self._is_behind = False
        if not self.read_paused and not self._transport.is_closing():
            self._transport.resume_reading()


class Connection(H11Protocol):
    """Serve one connection; for uvicorn.Config(http=Connection)."""

    _all_turns: ClassVar[WeakKeyDictionary[ServerState, _Turns]] = WeakKeyDictionary()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._transport = transport
        self._flow = self.flow = _Flow(transport)
        self._turns = self._all_turns.setdefault(self.server_state, _Turns())
        self._arrived = bytearray()
        self._wait: Wait = None
        self._timer: asyncio.TimerHandle | None = None
        self._lingered = 0
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has arrived and was not parsed."""
        self._arrived.clear()
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse a short piece now, a longer one in turns with those of other connections."""
        if not self._arrived and not self._turns and len(data) <= SHORT_BYTES:
            self._take(data)
            return
        if not self._arrived:
            self._flow.fall_behind()
            self._turns.add(self, self.loop)
        self._arrived += data

    def parse(self) -> bool:
        """Parse the next piece; say whether everything is parsed."""
        size = CHUNKED_PIECE_BYTES if self._may_be_chunked else PIECE_BYTES
        piece = bytes(self._arrived[:size])
        del self._arrived[:size]
        if piece and not self._transport.is_closing():
            self._take(piece)
        if self._arrived and not self._transport.is_closing():
            self._flow.fall_behind()  # uvicorn may have resumed between two requests
            return False
        self._arrived.clear()
        self._flow.catch_up()
        return True

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for the rest of a body that nobody wants."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as the service refuses, unless an answer has begun already."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse()
        self._transport.close()

    def _take(self, data: bytes) -> None:
        if self._wait == "linger":
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._transport.close()
                return
        super().data_received(data)
        self._watch()

    @property
    def _may_be_chunked(self) -> bool:
        if self.conn.their_state is not h11.SEND_BODY:
            return True
        return any(name == b"transfer-encoding" for name, _ in self.headers)

    def _watch(self) -> None:
        """Limit the time for what the client must do now, if anything."""
        theirs, ours = self.conn.their_state, self.conn.our_state
        if theirs is h11.IDLE:
            self._wait_for("head")
        elif theirs is h11.SEND_BODY and ours in (h11.DONE, h11.MUST_CLOSE):
            self._wait_for("linger")
        else:
            self._wait_for(None)

    def _wait_for(self, wait: Wait) -> None:
        if wait == self._wait:
            return
        self._wait, self._lingered = wait, 0
        if self._timer is not None:
            self._timer.cancel()
        limits = {"head": HEAD_S, "linger": LINGER_S}
        self._timer = None if wait is None else self.loop.call_later(limits[wait], self._transport.close)

    def _refuse(self) -> None:
        from service.errors import ApiError  # a server handles signals before it imports much

        request_id = uuid4().hex
        body = json.dumps(ApiError("bad_request").body(request_id)).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Request-ID": request_id,
            "Connection": "close",
        }
        answer = (h11.Response(status_code=400, headers=list(headers.items())), h11.Data(data=body))
        for event in (*answer, h11.EndOfMessage()):
            self._transport.write(self.conn.send(event) or b"")

    def _should_upgrade(self) -> bool:
        return False  # and no line in the log about it
