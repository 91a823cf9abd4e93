"""How bytes become requests: at once where that is cheap, in turns where it is not, always within a bound.

Nothing here looks at a clock but to compare what the service says with what its client saw.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from asyncio import selector_events
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import h11
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.server.connection import PIECE_BYTES, Connection
from service.server.flow import HIGH_WATER_BYTES
from tests.loopback import wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question, read_until
from tests.service.test_connection import HEAD, answer, chunked

READ_BYTES = 256 * 1024
"""What asyncio and uvloop read at once, at most."""
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
FRAME_BYTES = 230_000


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, loop=request.param) as served:
        assert type(served.loop).__module__.startswith(request.param)
        yield served


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Connections made from now on."""
    found: list[Connection] = []
    begin = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.Transport) -> None:
        begin(self, transport)
        found.append(self)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    return found


def post(size: int) -> bytes:
    """A request with a body of announced length, which says nothing that is JSON."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % size + b" " * size


def sends_at_once(connection: Any) -> bool:
    plain = connection.transport.get_extra_info("socket")
    return plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_answers_leave_at_once(served: Live, made: list[Connection]) -> None:
    """An answer is two writes; the second must not wait for the acknowledgement of the first."""
    with served.connect() as client:
        client.sendall(PROBE)
        assert answer(client)[0] == 200
        assert sends_at_once(made[0])


def test_uvicorn_alone_would_wait(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setattr("tests.service.live.Connection", H11Protocol)
    seen: list[bool] = []
    begin = H11Protocol.connection_made

    def connection_made(self: H11Protocol, transport: asyncio.Transport) -> None:
        begin(self, transport)
        seen.append(sends_at_once(self))

    monkeypatch.setattr(H11Protocol, "connection_made", connection_made)
    with live(checkpoint, loop="asyncio"):
        assert seen and not any(seen)


def pauses(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list of all pauses of asyncio's transports from now on."""
    found: list[object] = []
    pause = selector_events._SelectorSocketTransport.pause_reading  # type: ignore[attr-defined]

    def pause_reading(self: Any) -> None:
        found.append(self)
        pause(self)

    monkeypatch.setattr(selector_events._SelectorSocketTransport, "pause_reading", pause_reading)  # type: ignore[attr-defined]
    return found


def test_a_frame_is_read_without_a_pause(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = pauses(monkeypatch)
    with live(checkpoint, loop="asyncio") as served, served.connect() as client:
        for _ in range(5):
            client.sendall(post(FRAME_BYTES))
            assert answer(client)[0] == 400
    assert not paused


def test_uvicorn_alone_would_pause(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setattr("tests.service.live.Connection", H11Protocol)
    paused = pauses(monkeypatch)
    with live(checkpoint, loop="asyncio") as served, served.connect() as client:
        client.sendall(post(FRAME_BYTES))
        assert answer(client)[0] == 400
    assert paused


@pytest.mark.parametrize(
    "before", [b"", PROBE, post(1000), HEAD + b"Content-Length: 2\r\n\r\n{}"], ids=range(4)
)
def test_chunks_are_parsed_in_small_pieces_wherever_they_stand(
    served: Live, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    """A parser that is given 256 KB of one-byte chunks at once would hold the loop for half a second."""
    pieces: list[int] = []
    take, held = Connection._take, 0

    def taking(self: Connection, data: bytes) -> None:
        nonlocal held
        is_chunked = self.conn.their_state is h11.SEND_BODY and not self._body_left
        take(self, data)
        pieces.append(len(data) if is_chunked else 0)
        held = max(held, len(self.conn.trailing_data[0]))

    monkeypatch.setattr(Connection, "_take", taking)
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b" " * 20_000, 1)
    with served.connect() as client:
        client.sendall(before + request)
        statuses = [status for status, _ in Answers(client).take(2 if before else 1)]
    assert statuses[-1] == 400
    assert len(pieces) > 20_000 * 6 / PIECE_BYTES and max(pieces) <= PIECE_BYTES
    assert held < 16, "the parser keeps part of a chunk at most, nothing to parse in one go later"


def test_what_is_sent_ahead_is_held_within_a_bound(
    served: Live, question: Question, made: list[Connection]
) -> None:
    with served.busy() as go_on, served.connect() as client:
        client.sendall(raw_question(question))
        wait_for(lambda: served.state.engine.model_thread.waiting == 1)
        client.setblocking(False)
        sent, ahead = 0, post(2000) * 1000
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 1 and sent < 64 * 2**20:
            try:
                sent += client.send(ahead)
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert HIGH_WATER_BYTES < len(made[0]._arrived) <= HIGH_WATER_BYTES + READ_BYTES
        assert sent < 64 * 2**20, "nothing more is read, so nothing more can be sent"
        go_on.set()
        client.settimeout(30)
        statuses = [status for status, _ in Answers(client).take(2)]
        assert statuses == [200, 400], "then what was held is parsed"


def test_a_large_body_is_read_whole_whatever_its_application_leaves_waiting(served: Live) -> None:
    with served.connect() as client:
        for _ in range(2):
            client.sendall(post(2**20))
            assert answer(client)[0] == 400
        client.sendall(post(2**20 + 1))
        assert answer(client)[0] == 413
        client.sendall(PROBE)
        assert answer(client)[0] == 200


REQUESTS = (
    (PROBE, 200),
    (post(3000), 400),
    (HEAD + b"Content-Length: 2\r\n\r\n{}", 422),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"{" + b" " * 900 + b"}", 7), 422),
    (HEAD.replace(b"/vqa", b"/none") + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000, 404),
    (HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 6000\n\n" + b" " * 6000, 400),
    (PROBE.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), 200),
)


@pytest.mark.parametrize("seed", range(12))
def test_requests_are_told_apart_wherever_they_are_cut(served: Live, seed: int) -> None:
    rng = Random(seed)
    chosen = rng.choices(REQUESTS, k=6)
    wire = b"".join(request for request, _ in chosen)
    cuts = sorted(rng.sample(range(1, len(wire)), rng.randrange(1, 12)))
    with served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            client.sendall(wire[start:end])
            time.sleep(rng.choice((0, 0.002)))
        assert [status for status, _ in Answers(client).take(len(chosen))] == [status for _, status in chosen]


class Answers:
    """Read answers that may have come together."""

    def __init__(self, client: socket.socket) -> None:
        self._client, self._read = client, b""

    def take(self, number: int) -> Iterator[tuple[int, bytes]]:
        for _ in range(number):
            head = self._until(lambda: self._read.find(b"\r\n\r\n") + 4, at_least=4)
            fields = dict(line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
            length = int(fields[b"content-length"])
            yield int(head.split()[1]), self._until(lambda length=length: length, at_least=0)

    def _until(self, end: Any, at_least: int) -> bytes:
        while end() < at_least or len(self._read) < end():
            piece = self._client.recv(65536)
            assert piece, f"closed after {self._read!r}"
            self._read += piece
        at = end()
        found, self._read = self._read[:at], self._read[at:]
        return found


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(served: Live) -> None:
    """curl does so above 1 MB, and waits for a second in vain otherwise."""
    with served.connect() as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert answer(client)[0] == 422


def timings(client: socket.socket) -> dict[str, float]:
    status, body = answer(client)
    assert status == 200, body
    return body["timings_ms"]


def test_the_first_byte_of_the_head_starts_the_clock(served: Live, question: Question) -> None:
    """A request that trickles; what is idle between two requests belongs to neither."""
    request = raw_question(question)
    body = request.index(b"\r\n\r\n") + 4
    with served.connect() as client:
        for pieces in ((1, body), (20, body + 1), (body, body + 1000)):
            time.sleep(1)
            began = time.perf_counter()
            for start, end in zip((0, *pieces), (*pieces, len(request)), strict=True):
                client.sendall(request[start:end])
                time.sleep(0.2)
            found = timings(client)
            waited_ms = 1000 * (time.perf_counter() - began)
            stages = sum(value for name, value in found.items() if value is not None and name != "total")
            assert 390 < found["receive"] < found["total"] <= waited_ms
            assert stages == pytest.approx(found["total"], abs=0.01)


def test_a_body_that_never_ends_is_timed_too(checkpoint: Path) -> None:
    with live(checkpoint, body_timeout_s=0.3) as served, served.connect() as client:
        client.sendall(HEAD + b"Content-Length: 200\r\n\r\n{")
        assert answer(client)[0] == 408
        shown = served.client.get("/metrics").text
    received = re.findall(r'stage_seconds_sum\{[^}]*stage="receive"[^}]*\} (\S+)', shown)
    assert max(map(float, received)) > 0.29


def test_a_server_that_does_not_say_starts_the_clock_itself(client: Any, question: Question) -> None:
    found = question.post(client, "json").json()["timings_ms"]
    assert 0 <= found["receive"] < found["total"]


def test_the_deadline_counts_from_the_first_byte(served: Live, question: Question) -> None:
    request = raw_question(question.but(timeout_s=1))
    with served.busy(), served.connect() as client:
        client.sendall(request[:10])
        time.sleep(1.1)
        client.sendall(request[10:])
        status, body = answer(client)
        assert status == 504, json.dumps(body)
