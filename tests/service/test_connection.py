"""Bytes on the wire: counted while they come, never for ever, never at the cost of the others.

Bodies around the limit in every framing, refusals while the client still sends, clients that send what is
no HTTP, send it slowly, or do not read.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

import service.api.routes
import service.api.sse
import service.server.connection
from service.api.sse import text_event
from service.server.connection import Connection
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import PLACES, Question
from tests.service.lag import Lag, least_lag
from tests.service.live import Live, live, raw_question, read_until

LIMIT = 2**20
WORST_S = 0.5
HEAD = b"POST /vqa HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BAD_TYPE = HEAD.replace(b"application/json", b"text/plain")


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one answer with its body, and no more."""
    head, _, body = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


def sent(served: Live, data: bytes) -> tuple[int, str]:
    """Send everything, then read; return status and error code."""
    with served.connect() as connection:
        connection.sendall(data)
        status, body = answer(connection)
        return status, body["error"]["code"]


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [None, 1000, 65536, LIMIT + 1], ids=str)
@pytest.mark.parametrize(("over", "code"), [(-1, "bad_request"), (0, "bad_request"), (1, "body_too_large")])
def test_bodies_around_the_limit(served: Live, over: int, code: str, size: int | None) -> None:
    body = b" " * (LIMIT + over)
    if size is None:
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size)
    assert sent(served, request) == (413 if over > 0 else 400, code)
    wait_for(lambda: served.in_flight == 0)


def test_a_hundred_thousand_chunks_of_one_byte(served: Live) -> None:
    body = b'{"question": "' + b"x" * 100_000 + b'"}'

    def send() -> Lag:
        with Lag(served) as lag:
            assert sent(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 1))[0] == 422
        return lag

    lag = least_lag(send, WORST_S)
    assert lag.worst_s < WORST_S, lag


def test_uvicorn_alone_would_be_held_up(
    served: Live, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin."""
    monkeypatch.setattr("tests.service.live.Connection", H11Protocol)
    with live(checkpoint) as plain, Lag(plain) as lag:
        sent(plain, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b" " * 100_000, 1))
    assert lag.worst_s > 0.06, lag


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -5",
        b"Content-Length: 0x10",
        b"Content-Length: 1e3",
        b"Content-Length: 9223372036854775808999",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 6",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\n Content-Length: 5",
        b"X: " + b"y" * 70_000,
        b"no colon",
        b"X: \x00",
    ],
    ids=range(14),
)
def test_what_is_no_http_is_refused_in_our_words(served: Live, framing: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + framing + b"\r\n\r\nhello")
        status, body = answer(connection)
        assert (status, body["error"]["code"]) == (400, "bad_request")
        assert connection.recv(100) == b"", "closed: nobody knows where the next request begins"
    assert served.in_flight == 0


def test_a_body_with_both_framings_is_read_as_chunks(served: Live) -> None:
    """As RFC 9112 says; what is behind the last chunk is the next request, which is none."""
    with served.connect() as connection:
        connection.sendall(
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        )
        assert answer(connection)[0] in (400, 422)
    assert served.in_flight == 0


@pytest.mark.parametrize("length", [LIMIT + 1, 10**12, 10**19])
def test_a_length_too_large_is_refused_before_a_byte_of_it(served: Live, length: int) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
        assert answer(connection)[0] == 413


def test_fewer_bytes_than_announced_end_with_the_connection(served: Live) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n{")
        wait_for(lambda: len(served.state.arrivals) == 1)
    wait_for(lambda: len(served.state.arrivals) == 0)


BIG = 20 * 2**20


@pytest.fixture(params=["length", "chunked"])
def framed(request: pytest.FixtureRequest) -> bytes:
    if request.param == "length":
        return b"Content-Length: %d\r\n\r\n" % BIG + b"x" * BIG
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * BIG, 2**16)


@pytest.mark.parametrize("why", ["too large", "wrong type", "no key", "full", "unknown address"])
def test_who_sends_everything_before_reading_gets_the_refusal_and_may_go_on(
    checkpoint: Path, framed: bytes, why: str
) -> None:
    expected = {"too large": 413, "wrong type": 415, "no key": 401, "full": 503, "unknown address": 404}[why]
    head = {"wrong type": BAD_TYPE, "unknown address": HEAD.replace(b"/vqa", b"/none")}.get(why, HEAD)
    keys: dict[str, Any] = {"api_keys": "a=b"} if why == "no key" else {}
    with live(checkpoint, **keys) as served, served.connect() as connection:
        if why == "full":
            served.state.engine.admission.in_flight = PLACES
        connection.sendall(head + framed)
        assert answer(connection)[0] == expected
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 200, "the connection is whole"


def test_who_never_stops_sending_is_cut_off(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.server.connection, "LINGER_BYTES", 3 * 2**20)
    swallowed = 0
    with served.connect() as connection, pytest.raises(OSError):
        connection.sendall(BAD_TYPE + b"Transfer-Encoding: chunked\r\n\r\n")
        assert answer(connection)[0] == 415
        while swallowed < 200 * 2**20:
            swallowed += connection.send(chunked(b"x" * 2**16, 2**16)[:-5])
    assert swallowed < 30 * 2**20


def test_who_goes_on_slowly_after_a_refusal_is_cut_off(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.server.connection, "LINGER_S", 0.3)
    with served.connect() as connection:
        connection.sendall(BAD_TYPE + b"Content-Length: 500\r\n\r\n")
        assert answer(connection)[0] == 415
        assert is_cut(connection, b"x")


def test_a_head_that_trickles_is_cut_off(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(service.server.connection, "HEAD_S", 0.4)
        with served.connect() as first, served.connect() as silent:
            first.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(first)[0] == 200
            assert is_cut(first, b"G"), "a second request trickles"
            assert is_cut(silent, b""), "nothing ever comes"


def is_cut(connection: socket.socket, drop: bytes) -> bool:
    """Say whether the other side closes, while we send a little now and then."""
    connection.settimeout(0.05)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            connection.sendall(drop)
            if connection.recv(1000) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_garbage_after_a_refusal_breaks_nothing(served: Live, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect() as connection:
        connection.sendall(BAD_TYPE + b"Transfer-Encoding: chunked\r\n\r\n")
        assert answer(connection)[0] == 415
        connection.sendall(b"zz\r\n")
        assert connection.recv(100) == b""
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text


@pytest.mark.parametrize("stage", ["body", "waiting", "stream"])
def test_garbage_in_the_middle_frees_the_place(served: Live, question: Question, stage: str) -> None:
    with served.busy() as go_on, served.connect() as connection:
        if stage == "body":
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
            wait_for(lambda: len(served.state.arrivals) == 1)
            connection.sendall(b"zz\r\n")
        else:
            connection.sendall(raw_question(question.but(stream=stage == "stream", max_new_tokens=200)))
            wait_for(lambda: served.state.engine.model_thread.waiting == 1)
            connection.close()
        wait_for(lambda: served.in_flight == len(served.state.arrivals) == 0)
        wait_for(lambda: served.state.engine.model_thread.waiting == 0)  # nothing is kept for who has left
        go_on.set()


def test_an_upgrade_is_not_made_and_not_talked_about(served: Live, caplog: pytest.LogCaptureFixture) -> None:
    with served.connect() as connection:
        connection.sendall(
            b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert answer(connection)[0] == 200
    assert not caplog.records


@pytest.mark.parametrize(("last_words_s", "inside"), [(0.2, 0), (60, 1)], ids=["guarded", "twin"])
def test_who_does_not_read_a_stream_loses_the_place(
    checkpoint: Path, question: Question, monkeypatch: pytest.MonkeyPatch, last_words_s: float, inside: int
) -> None:
    made = Connection.connection_made

    def narrow(self: Connection, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        transport.set_write_buffer_limits(0)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", narrow)
    monkeypatch.setattr(service.api.sse, "LAST_WORDS_S", last_words_s)
    # The kernel takes 6 KB and more at once, as much as all events: how much depends on the loop's writes.
    monkeypatch.setattr(service.api.routes, "text_event", lambda piece: text_event(piece + " " * 2000))
    with live(checkpoint) as served, ExitStack() as open_ones:
        for timeout_s in (1, 5, 25):  # until the stream has begun before its deadline
            connection = open_ones.enter_context(closing(socket.socket()))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.settimeout(PATIENCE_S)
            connection.connect(("127.0.0.1", served.port))
            posted = question.but(stream=True, max_new_tokens=200, timeout_s=timeout_s)
            connection.sendall(raw_question(posted))
            if connection.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 200":
                break
        if inside:
            time.sleep(timeout_s + 0.8)  # past the deadline and the last words of the other case
        else:
            wait_for(lambda: served.in_flight == 0)
        assert served.in_flight == inside


def test_many_long_bodies_take_turns(served: Live) -> None:
    """Thirty clients send tiny chunks at once; a probe comes through all the same."""
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b" " * 20_000, 1)

    def send() -> Lag:
        with ExitStack() as stack:
            connections = [stack.enter_context(served.connect()) for _ in range(30)]
            with Lag(served) as lag:
                for connection in connections:
                    connection.sendall(request)
                for _ in range(5):
                    assert served.client.get("/livez").status_code == 200
                assert {answer(connection)[0] for connection in connections} <= {400, 503}
        return lag

    lag = least_lag(send, WORST_S)
    assert lag.worst_s < WORST_S, lag


def test_a_connection_that_cannot_be_read_stops_no_other(
    served: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Connection._take

    def breaks(self: Connection, data: bytes) -> None:
        if b"break" in data:
            raise RuntimeError("on purpose")
        take(self, data)

    monkeypatch.setattr(Connection, "_take", breaks)
    with served.connect() as connection:
        connection.sendall(HEAD + b"X: break" + b"x" * 1000 + b"\r\n\r\n")
        assert is_cut(connection, b"")
    assert sent(served, HEAD + b"X: " + b"x" * 1000 + b"\r\nContent-Length: 2\r\n\r\n{}")[0] == 422


def test_the_server_uses_this_connection() -> None:
    from service.server.uvicorn_server import Server

    class Nobody:
        class state:
            service = None

    from service.settings import Settings

    server = Server(Nobody, "127.0.0.1", 0, Settings())
    assert isinstance(server, uvicorn.Server) and server.config.http is Connection
    assert server.config.loop == "auto", "uvloop where it is installed"
