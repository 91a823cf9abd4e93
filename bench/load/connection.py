"""HTTP/1.1 by h11 on a non-blocking socket: one request out, one response back, with timestamps.

A socket and not an asyncio stream: a server that refuses before it has read the body closes the connection,
and a stream then drops the response that has already arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from time import perf_counter

import h11

READ_BYTES = 1 << 16


class NoResponse(Exception):
    """The connection failed or closed before a whole response arrived; the text says how."""


@dataclass(frozen=True)
class Response:
    """One whole response. Times are perf_counter seconds; `arrivals` are (time, body bytes so far)."""

    status: int
    headers: dict[str, str]
    body: bytes
    arrivals: tuple[tuple[float, int], ...]
    first_byte_s: float
    ended_s: float


class Connection:
    """One connection, used by one request at a time and kept open between requests."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._protocol = h11.Connection(h11.CLIENT)
        self._all_sent = True
        self.idle_since_s = perf_counter()

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect. Raises NoResponse if no connection can be made."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise NoResponse(f"connect: {error.strerror}") from None
            raise
        return cls(sock)

    @property
    def is_open(self) -> bool:
        """Whether the server has neither closed nor sent anything since the last response."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    @property
    def is_reusable(self) -> bool:
        """Whether the last response allows another request on this connection."""
        return self._all_sent and self._protocol.our_state is h11.IDLE

    async def exchange(self, head: h11.Request, body: bytes = b"") -> Response:
        """Send a request and read its response, which may come before all is sent. Raises NoResponse."""
        sending = self.send(head, body)
        try:
            response = await self._read()
        except OSError as error:
            raise NoResponse(f"read: {error.strerror}") from None
        finally:
            self.idle_since_s = perf_counter()
            if sending is not None:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sending
        if self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE:
            self._protocol.start_next_cycle()
        return response

    def send(self, head: h11.Request, body: bytes = b"") -> asyncio.Task[None] | None:
        """Send what the kernel takes now; return a task for the rest, if there is one.

        Head and body go out in two writes, as httpx and http.client send them.
        """
        encoded = self._protocol.send(head) or b""
        data = self._protocol.send(h11.Data(body)) or b"" if body else b""
        self._protocol.send(h11.EndOfMessage())
        rest = _send_now(self._socket, encoded)
        rest = rest + data if rest else _send_now(self._socket, data)
        self._all_sent = not rest
        return asyncio.create_task(self._send_rest(rest)) if rest else None

    def close(self) -> None:
        self._socket.close()

    async def _send_rest(self, rest: bytes) -> None:
        with contextlib.suppress(OSError):  # the response, if there is one, is still to be read
            await asyncio.get_running_loop().sock_sendall(self._socket, rest)
            self._all_sent = True

    async def _read(self) -> Response:
        loop, reader = asyncio.get_running_loop(), ResponseReader(self._protocol)
        while True:
            data = await loop.sock_recv(self._socket, READ_BYTES)
            response = reader.feed(data, perf_counter())
            if response is not None:
                return response


def _send_now(sock: socket.socket, data: bytes) -> bytes:
    """Send what the kernel takes without waiting; return what is left."""
    try:
        return data[sock.send(data) :] if data else data
    except OSError:
        return data


@dataclass
class ResponseReader:
    """Collect the events of one response, and when its bytes arrived."""

    protocol: h11.Connection
    _head: h11.Response | None = None
    _body: bytearray = field(default_factory=bytearray)
    _arrivals: list[tuple[float, int]] = field(default_factory=list)
    _first_byte_s: float | None = None

    def feed(self, data: bytes, now: float) -> Response | None:
        """Take bytes, none at the end of the connection; return the response once it is whole.

        Raises NoResponse if the connection ends too early or does not speak HTTP/1.1.
        """
        if data and self._first_byte_s is None:
            self._first_byte_s = now
        try:
            self.protocol.receive_data(data)
            is_whole = self._take_events()
        except h11.RemoteProtocolError as error:
            raise NoResponse(self._reason(error, ended=not data)) from None
        if self._body and (not self._arrivals or len(self._body) > self._arrivals[-1][1]):
            self._arrivals.append((now, len(self._body)))
        return self._response(now) if is_whole else None

    def _take_events(self) -> bool:
        while (event := self.protocol.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return True
        return False

    def _reason(self, error: h11.RemoteProtocolError, ended: bool) -> str:
        if not ended:
            return f"not HTTP: {error}"
        return "closed without a response" if self._head is None else "closed within a response"

    def _response(self, now: float) -> Response:
        assert self._head is not None and self._first_byte_s is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head.headers}
        body, arrivals = bytes(self._body), tuple(self._arrivals)
        return Response(self._head.status_code, headers, body, arrivals, self._first_byte_s, now)
