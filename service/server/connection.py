"""One HTTP connection: no client keeps the event loop busy, sends without end, or trickles a head for ever.

Uvicorn's own protocol, with what it leaves open: it takes whatever arrives in one piece, discards a refused
body for as long as it comes, and waits for a request without a limit.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from time import perf_counter
from typing import ClassVar, Literal
from uuid import uuid4
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.server.clock import FIRST_BYTE
from service.server.flow import Flow, Turns

HEAD_END = re.compile(rb"\n\r?\n")
PIECE_BYTES = 4 * 1024
"""What is parsed in one go of heads and chunks: a chunked body may hold an event in every six bytes."""
SHORT_BYTES = 512
"""Chunks this short are parsed as they come, unless others wait for a turn."""
HEAD_S = 10.0
"""Time for a request's head to arrive, from when the connection is free for it."""
LINGER_S, LINGER_BYTES = 5.0, 64 * 2**20
"""What is still taken of a body that was refused, so that its sender gets to read the answer."""

Wait = Literal["head", "linger"] | None


class Connection(H11Protocol):
    """Serve one connection; for uvicorn.Config(http=Connection)."""

    _all_turns: ClassVar[WeakKeyDictionary[ServerState, Turns]] = WeakKeyDictionary()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        _send_at_once(transport)
        self.app_state = {**self.app_state}
        self._transport = transport
        self._flow = self.flow = Flow(transport, self._waiting_bytes)
        self._turns = self._all_turns.setdefault(self.server_state, Turns())
        self._arrived = bytearray()
        self._has_begun = False
        self._body_left = 0
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
        """Parse what is cheap now, chunks in turns with those of other connections."""
        if self._arrived:
            self._arrived += data
        else:
            self._arrived += self._parse_cheap(data)
            if self._arrived and not self._is_held:
                self._turns.add(self, self.loop)
        self._flow.adjust()

    def parse(self) -> bool:
        """Parse the next piece; return whether no further turn is needed."""
        if self._arrived and not self._is_held:
            size = self._piece_bytes(self._arrived)
            piece = bytes(self._arrived[:size])
            del self._arrived[:size]
            self._take(piece)
        if self._transport.is_closing():
            self._arrived.clear()
        self._flow.adjust()
        return not self._arrived or self._is_held

    def on_response_complete(self) -> None:
        """Continue with the next request, or wait for the rest of a refused body."""
        was_held = self._is_held
        self._note_first_byte()
        super().on_response_complete()
        self._watch()
        if was_held and self._arrived:
            self._turns.add(self, self.loop)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as the service refuses, unless an answer has begun already."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse()
        self._transport.close()

    def _parse_cheap(self, data: bytes) -> bytes:
        """Parse heads, and bodies of announced length, which are one event however long; return the rest."""
        while data and not self._transport.is_closing():
            if self._is_held or (self._is_costly and (self._turns or len(data) > SHORT_BYTES)):
                return data
            size = self._piece_bytes(data)
            self._take(data[:size])
            data = data[size:]
        return b""

    def _take(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if self._wait == "linger":
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._transport.close()
                return
        is_head = self.conn.their_state is h11.IDLE
        if is_head and not self._has_begun:
            self._note_first_byte()
        super().data_received(data)
        self._has_begun = self.conn.their_state is h11.IDLE and is_head
        if is_head:
            self._body_left = self._announced_bytes()
        else:
            self._body_left = max(0, self._body_left - len(data))
        self._watch()

    def _piece_bytes(self, data: bytes | bytearray) -> int:
        """Return how much of the data to parse in one go: a head, a body of announced length, or a piece."""
        if self.conn.their_state is h11.IDLE:
            end = HEAD_END.search(data, 0, PIECE_BYTES)
            return PIECE_BYTES if end is None else end.end()
        return self._body_left or PIECE_BYTES

    def _announced_bytes(self) -> int:
        """Return the length of the body whose head has just been parsed; 0 if it comes in chunks."""
        if self.conn.their_state is not h11.SEND_BODY:
            return 0
        fields = dict(self.headers)
        return 0 if b"transfer-encoding" in fields else int(fields[b"content-length"])

    def _note_first_byte(self) -> None:
        """Pass the start time of the request on; uvicorn copies `app_state` into the scope."""
        self.app_state[FIRST_BYTE] = perf_counter()

    def _waiting_bytes(self) -> int:
        is_read = self.cycle is not None and not self.cycle.response_complete
        return len(self._arrived) + (len(self.cycle.body) if is_read else 0)

    @property
    def _is_costly(self) -> bool:
        """Return whether the next data may hold an event in every few bytes."""
        return self.conn.their_state is not h11.IDLE and not self._body_left

    @property
    def _is_held(self) -> bool:
        """Return whether a whole request has arrived, so that further data waits for its answer."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

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
        from service.errors import ServiceError  # a server handles signals before it imports much

        request_id = uuid4().hex
        body = json.dumps(ServiceError("bad_request").body(request_id)).encode()
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


def _send_at_once(transport: asyncio.Transport) -> None:
    """Send the end of an answer without waiting until its beginning is acknowledged, which takes 40 ms.

    uvloop does so by itself, asyncio only for sockets made with IPPROTO_TCP, which uvicorn's listener is not.
    """
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
