"""Slow and many clients at once: the proxy closes them in time and an honest client does not notice."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from tests.docker.door import Door
from tests.docker.replica import Stub
from tests.docker.test_proxy import post, refusal
from tests.loopback import PATIENCE_S, wait_for

HEADER_S, CLIENT_S = 5, 10
"""What the proxy gives a header, and any silence: who is closed before the second was closed by the first."""


class Crowd:
    """Hold connections from eight addresses; half say nothing, half send one byte of a header at a time."""

    def __init__(self, door: Door, each: int) -> None:
        self.opened: dict[socket.socket, float] = {}
        self.idle = [self._open(door, number) for number in range(each)]
        self.trickling = [self._open(door, number) for number in range(each)]
        self.complete = time.monotonic()
        self.closed_s: dict[socket.socket, float] = {}
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _open(self, door: Door, number: int) -> socket.socket:
        connection = door.connect(f"127.0.0.{10 + number % 8}")
        self.opened[connection] = time.monotonic()
        return connection

    def _live(self) -> None:
        watched = selectors.DefaultSelector()
        for connection in self.opened:
            watched.register(connection, selectors.EVENT_READ)
        while watched.get_map() and time.monotonic() < self.complete + PATIENCE_S:
            for connection in self.trickling:
                with suppress(OSError):
                    connection.send(b"G")
            for key, _ in watched.select(0.2):
                self._read(key.fileobj, watched)
        watched.close()

    def _read(self, connection: object, watched: selectors.BaseSelector) -> None:
        assert isinstance(connection, socket.socket)
        with suppress(ConnectionResetError):
            if connection.recv(4096):
                return
        watched.unregister(connection)
        self.closed_s[connection] = time.monotonic() - self.opened[connection]

    def end(self) -> None:
        """Wait until all are closed, or the patience of the crowd is over."""
        self._thread.join(2 * PATIENCE_S)
        for connection in self.opened:
            connection.close()


@contextmanager
def crowd(door: Door, each: int) -> Iterator[Crowd]:
    people = Crowd(door, each)
    try:
        yield people
    finally:
        people.end()


def rounds_beside(people: Crowd, door: Door) -> int:
    """Ask as an honest client until the first of the crowd is closed; return how often that worked."""
    rounds = 0
    with door.client() as client:
        while not people.closed_s:
            assert client.post("/vqa", content=bytes(100_000)).status_code == 200
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
            rounds += not people.closed_s
    return rounds


def test_four_hundred_slow_connections_are_closed_and_nobody_else_notices(door: Door) -> None:
    """Order instead of time: whoever had to wait for a place of the crowd would be answered after it."""
    for _ in range(3):  # where opening them takes as long as they may be open, nothing is seen
        with crowd(door, 200) as people:
            rounds = rounds_beside(people, door)
        assert len(people.closed_s) == 400
        idle_s = sorted(people.closed_s[connection] for connection in people.idle)
        assert HEADER_S - 1 < idle_s[100] < CLIENT_S, "by the limit of headers"
        if rounds > 3:
            return
    raise AssertionError("nobody was answered beside the crowd")


def asked_from(door: Door, source: str) -> bytes:
    """Ask from an address and return the raw answer: nothing if the connection was closed without a word."""
    read = b""
    with suppress(ConnectionResetError, BrokenPipeError), door.connect(source) as connection:
        connection.sendall(post("/vqa", 0, "Connection: close"))
        while part := connection.recv(65536):
            read += part
    return read


def is_silent(connection: socket.socket) -> bool:
    """Say whether a connection is still open and nothing has come."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return False


class Silent:
    """Connections from one address that say nothing, opened again when the proxy has had enough of them."""

    def __init__(self, door: Door, source: str) -> None:
        self.door, self.source = door, source
        self.held: list[socket.socket] = []

    def answer_beside(self, number: int) -> bytes:
        """Ask once more while so many are open."""
        for connection in [one for one in self.held if not is_silent(one)]:
            self.held.remove(connection)
            connection.close()
        for _ in range(number - len(self.held)):
            with suppress(ConnectionResetError):  # one too many, while others are still counted
                self.held.append(self.door.connect(self.source))
        return asked_from(self.door, self.source)

    def close(self) -> None:
        for connection in self.held:
            connection.close()


def test_one_address_has_so_many_requests_and_connections(door: Door, stub: Stub) -> None:
    """64 connections may ask; 128 may be open, the rest is closed without a word."""
    with closing(Silent(door, "127.0.0.30")) as silent:
        wait_for(lambda: b" 429 " in silent.answer_beside(64))
        before, answer = len(stub.seen), silent.answer_beside(64)
        assert refusal(answer) == (429, "too_many_connections") and b"retry-after: 1" in answer.lower()
        wait_for(lambda: silent.answer_beside(128) == b"")
        assert len(stub.seen) == before
        with door.client() as elsewhere:
            assert elsewhere.get("/livez").status_code == 200
    wait_for(lambda: b" 200 " in asked_from(door, silent.source))


def most_beside_stalled_uploads(door: Door, stub: Stub) -> int:
    """Ask as an honest client while six large uploads stall; return how many got inside."""
    wait_for(lambda: stub.in_flight == 0)
    stub.most_in_flight = 0
    with ExitStack() as stack:
        for _ in range(6):
            upload = stack.enter_context(door.connect())
            with suppress(ConnectionResetError, BrokenPipeError):
                upload.sendall(post("/vqa", 5_000_000) + bytes(2_000_000))
        with suppress(AssertionError):
            wait_for(lambda: stub.in_flight == 4, CLIENT_S)
        with door.client() as client:
            for _ in range(20):
                assert client.post("/vqa", content=bytes(500_000)).status_code == 200
    return stub.most_in_flight


def test_stalled_large_uploads_hold_four_places_of_the_service(door: Door, stub: Stub) -> None:
    seen = 0
    for _ in range(5):  # where a machine gets nowhere in the time after which silent uploads are closed
        seen = seen if seen == 5 else most_beside_stalled_uploads(door, stub)
        assert seen <= 5
    assert seen == 5
