"""The load generator tells the truth: known delays, lost answers, early refusals, slow servers."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import closing
from itertools import pairwise
from time import perf_counter

import h11
import pytest

from bench.load.connection import NoResponse, Response, ResponseReader
from bench.load.generator import Target, closed_loop, open_loop, poisson, send_and_disconnect, steady
from bench.load.requests import Request, Sample, form
from bench.load.summary import by_label, over_time, percentiles, summarise
from tests.bench.synthetic import Synthetic, running
from tests.loopback import PATIENCE_S, wait_for

BODY = form({"question": "?"}, {"image": b"x" * 1000})


def requests(number: int, body: bytes = BODY) -> list[Request]:
    return [Request("/vqa", body)] * number


def loaded(
    server: Synthetic,
    moments: list[float],
    body: bytes = BODY,
    timeout_s: float = PATIENCE_S,
    fresh: bool = False,
) -> list[Sample]:
    with running(server) as url, closing(Target.of(url, timeout_s)) as target:
        return asyncio.run(open_loop(target, requests(len(moments), body), moments, fresh))


@pytest.mark.parametrize("fresh", [False, True])
def test_a_known_delay_is_reported_within_two_percent_and_the_noise(fresh: bool) -> None:
    server = Synthetic(delay_s=0.1)
    seen = summarise(loaded(server, steady(rate=40, seconds=1), fresh=fresh))
    assert seen["answered"] == seen["sent"] == 40 and seen["noise_ms"] is not None
    truth = statistics.median(server.delays_ms)
    assert truth >= 100
    # 3 ms: what it takes this server to see a request, which it cannot measure itself
    assert abs(seen["latency_ms"]["p50"] - truth) <= 0.02 * truth + seen["noise_ms"]["p99"] + 3


def test_a_slow_server_does_not_make_the_requests_behind_it_look_fast() -> None:
    moments = steady(rate=100, seconds=0.4)
    slow = summarise(loaded(Synthetic(delay_s=0.02, one_by_one=True), moments))
    assert slow["latency_ms"]["max"] > 300  # the 40th waits for 39 others at 20 ms, and was due after 390 ms

    # The twin: a client that waits sees nothing of it.
    with running(Synthetic(delay_s=0.02, one_by_one=True)) as url, closing(Target.of(url)) as target:
        omitting = summarise(asyncio.run(closed_loop(target, requests(40), 1)))
    assert omitting["latency_ms"]["p50"] < 100


@pytest.mark.parametrize(
    ("outcome", "reason"), [("drop", "closed without"), ("truncate", "closed within"), ("hang", "timeout")]
)
def test_an_answer_that_does_not_come_is_lost(outcome: str, reason: str) -> None:
    seen = summarise(loaded(Synthetic(outcomes=("answer", outcome, "answer")), steady(20, 0.15), timeout_s=3))
    assert (seen["answered"], seen["lost"], seen["refused"]) == (2, 1, 0)
    assert next(iter(seen["lost_how"])).startswith(reason)


def test_a_server_that_is_not_there_loses_everything() -> None:
    with running(Synthetic()) as url:
        pass
    seen = summarise(asyncio.run(open_loop(Target.of(url), requests(3), [0, 0, 0])))
    assert seen["lost"] == 3 and seen["latency_ms"] is None and seen["throughput"] == 0


def test_a_refusal_before_the_body_is_read_is_no_lost_answer() -> None:
    large = form({"question": "?"}, {"image": b"x" * 8_000_000})
    seen = summarise(loaded(Synthetic(outcomes=("refuse",)), steady(20, 0.5), large))
    assert (seen["refused"], seen["lost"], seen["codes"]) == (10, 0, {"overloaded": 10})
    assert seen["without_retry_after"] == 0


def test_clients_that_disconnect_are_neither_answered_nor_lost() -> None:
    server = Synthetic(outcomes=("hang",))

    async def abandon(url: str) -> list[Sample]:
        target, request = Target.of(url), requests(1)[0]
        return await asyncio.gather(
            *(send_and_disconnect(target, request, perf_counter(), 0.05) for _ in range(5))
        )

    with running(server) as url:
        seen = summarise(asyncio.run(abandon(url)))
        assert seen["disconnected"] == 5 and seen["lost"] == 0
        wait_for(lambda: server.disconnected == 5)


def test_every_event_of_a_stream_has_its_moment() -> None:
    (seen,) = loaded(Synthetic(delay_s=0.05, outcomes=("stream",)), [0.0])
    moments = seen.event_moments()
    assert len(moments) == 3 and seen.answer() == {"answer": "aaa"}
    assert 0.045 < moments[0] - seen.due_s < PATIENCE_S and all(b > a for a, b in pairwise(moments))


WHOLE = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
)


def fed(pieces: list[bytes]) -> Response | None:
    protocol, response = h11.Connection(h11.CLIENT), None
    protocol.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    protocol.send(h11.EndOfMessage())
    reader = ResponseReader(protocol)
    for moment, piece in enumerate(pieces):
        response = response or reader.feed(piece, float(moment))
    return response


def test_a_response_may_be_split_anywhere() -> None:
    for at in range(1, len(WHOLE)):
        response = fed([WHOLE[:at], WHOLE[at:]])
        assert response is not None and (response.status, response.body) == (200, b"hello world")
        assert response.headers["x-a"] == "b"
    one_by_one = fed([bytes([byte]) for byte in WHOLE])
    assert one_by_one is not None and one_by_one.arrivals[-1][1] == len(b"hello world")
    assert one_by_one.arrivals[0][1] == 1 and one_by_one.ended_s == len(WHOLE) - 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "closed without"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed within"),
        (WHOLE[:-4], "closed within"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    ],
)
def test_an_early_end_is_no_response(data: bytes, reason: str) -> None:
    with pytest.raises(NoResponse, match=reason):
        fed([data, b""] if data else [b""])


def test_requests_of_one_client_share_a_connection() -> None:
    server = Synthetic()
    with running(server) as url, closing(Target.of(url)) as target:
        samples = asyncio.run(closed_loop(target, requests(20), 1))
        assert summarise(samples)["answered"] == 20
        assert (target.opened, server.connections) == (1, 1)


def test_fresh_connections_are_not_shared() -> None:
    server = Synthetic()
    with running(server) as url, closing(Target.of(url)) as target:
        asyncio.run(closed_loop(target, requests(5), 1, fresh=True))
        assert (target.opened, server.connections) == (5, 5)


def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    server = Synthetic(outcomes=("refuse", "answer", "refuse", "answer"))
    with running(server) as url, closing(Target.of(url)) as target:
        seen = summarise(asyncio.run(closed_loop(target, requests(4), 1)))
    assert (seen["answered"], seen["refused"], seen["lost"], target.opened) == (2, 2, 0, 3)


def test_schedules() -> None:
    assert steady(4, 1) == [0, 0.25, 0.5, 0.75]
    moments = poisson(100, 20, seed=1)
    assert moments == sorted(moments) and moments[-1] < 20 and abs(len(moments) - 2000) < 200
    assert poisson(100, 20, seed=1) == moments != poisson(100, 20, seed=2)


def sample(label: str, due: float, ended: float, status: int | None = 200) -> Sample:
    return Sample(label, due, due, ended, status, lost=None if status else "closed")


def test_summaries() -> None:
    seen = [sample("a", 0, 0.1), sample("a", 0, 1.0), sample("b", 1, 2.0, 503), sample("b", 1, 2.0, None)]
    all_seen = summarise(seen, slo_ms=500)
    assert [all_seen[key] for key in ("sent", "answered", "refused", "lost")] == [4, 2, 1, 1]
    assert (all_seen["throughput"], all_seen["goodput"]) == (1.0, 0.5)
    assert by_label(seen)["a"]["throughput"] == 1.0 and by_label(seen)["b"]["answered"] == 0
    assert over_time(seen, lambda one: one.is_answer, bin_s=1) == [[0.5, 1.0], [1.5, 1.0]]
    assert percentiles([]) is None and percentiles([1, 2, 3]) == {"p50": 2, "p90": 2.8, "p99": 2.98, "max": 3}


def test_a_key_is_sent_as_a_header() -> None:
    request = Request("/vqa", BODY)
    signed = dict(Target("a:1", "127.0.0.1", 1, key="secret").head(request).headers)
    unsigned = dict(Target("a:1", "127.0.0.1", 1).head(request).headers)
    assert signed.pop(b"authorization") == b"Bearer secret" and signed == unsigned
    assert (unsigned[b"host"], unsigned[b"content-length"]) == (b"a:1", str(len(BODY)).encode())


def test_only_plain_addresses_are_taken() -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Target.of("https://example.org")
