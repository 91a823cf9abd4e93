"""Bodies that are arriving hold no slot of the model, and take a bounded number of bytes and of places."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from service.api.arrivals import Arrival, Arrivals
from service.errors import ServiceError
from service.settings import Settings
from tests.loopback import wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question
from tests.service.test_connection import HEAD, answer

SLOTS = Settings().max_queue + Settings().max_batch
MIB = 2**20


def begin(served: Live, connections: ExitStack, data: bytes) -> socket.socket:
    """Send the beginning of a request, and wait until its body is arriving."""
    before = served.state.arrivals.begun
    connection = connections.enter_context(closing(served.connect()))
    connection.sendall(data)
    wait_for(lambda: served.state.arrivals.begun == before + 1)
    return connection


def large(size: int) -> bytes:
    """Write the head of a request whose body is longer than `size`, and as much of it."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % (size + 10) + b" " * size


def test_stalled_uploads_hold_no_slot(checkpoint: Path, question: Question) -> None:
    raw = raw_question(question)
    with live(checkpoint, max_queue=16, max_batch=8) as served, ExitStack() as connections:
        assert served.state.engine.admission.slots == SLOTS == 24
        stalled = [begin(served, connections, raw[:-7]) for _ in range(SLOTS)]
        assert (len(served.state.arrivals), served.in_flight) == (SLOTS, 0)
        assert question.post(served.client, "multipart").status_code == 200
        assert len(served.state.arrivals) == SLOTS, "nobody had to make room"
        for connection in stalled:
            connection.sendall(raw[-7:])
        statuses = [answer(connection)[0] for connection in stalled]
        assert statuses == [200] * SLOTS
        wait_for(lambda: served.in_flight == 0)


def test_a_body_takes_its_slot_when_it_is_there(checkpoint: Path, question: Question) -> None:
    raw = raw_question(question)
    with live(checkpoint, max_queue=0, max_batch=1) as served, ExitStack() as connections:
        late = begin(served, connections, raw[:-1])
        with served.busy():
            first = begin(served, connections, raw)
            wait_for(lambda: served.in_flight == 1)
            late.sendall(raw[-1:])
            status, body = answer(late)
            assert (status, body["error"]["code"]) == (503, "overloaded")
        assert answer(first)[0] == 200


def test_a_full_service_refuses_before_a_body_arrives(checkpoint: Path, question: Question) -> None:
    raw = raw_question(question)
    with live(checkpoint, max_queue=0, max_batch=1) as served, served.busy(), ExitStack() as connections:
        begin(served, connections, raw)
        wait_for(lambda: served.in_flight == 1)
        late = connections.enter_context(closing(served.connect()))
        late.sendall(raw[:-1])
        assert answer(late)[1]["error"]["code"] == "overloaded"


def test_the_oldest_upload_makes_room_for_bytes(checkpoint: Path) -> None:
    with live(checkpoint, max_body_mib=1, max_arriving_mib=1) as served, ExitStack() as connections:
        first = begin(served, connections, large(600_000))
        wait_for(lambda: served.state.arrivals.bytes == 600_000)
        second = begin(served, connections, large(600_000))
        status, body = answer(first)
        assert (status, body["error"]["code"]) == (503, "overloaded")
        wait_for(lambda: served.state.arrivals.bytes == 600_000)
        second.sendall(b" " * 10)
        assert answer(second)[1]["error"]["code"] == "bad_request", "its body was read, and is no JSON"
        wait_for(lambda: (served.state.arrivals.bytes, len(served.state.arrivals)) == (0, 0))


def test_the_oldest_upload_makes_room_for_another(checkpoint: Path) -> None:
    with live(checkpoint, max_arriving=2) as served, ExitStack() as connections:
        first, *_ = [begin(served, connections, large(100)) for _ in range(4)]
        assert answer(first)[0] == 503
        wait_for(lambda: len(served.state.arrivals) == 2)
        shown = served.client.get("/metrics").text
        assert "tosa_vqa_arriving 2.0" in shown and "tosa_vqa_arriving_bytes 200.0" in shown


def test_a_crowd_that_stalls_keeps_nobody_out(checkpoint: Path, question: Question) -> None:
    with live(checkpoint, max_arriving=8) as served, ExitStack() as connections:
        for _ in range(40):
            begin(served, connections, large(1000))
        assert len(served.state.arrivals) == 8
        for form in ("json", "multipart"):
            assert question.post(served.client, form).status_code == 200


def test_a_client_that_leaves_gives_its_bytes_back(checkpoint: Path) -> None:
    with live(checkpoint) as served, ExitStack() as connections:
        begin(served, connections, large(1000)).close()
        wait_for(lambda: (served.state.arrivals.bytes, len(served.state.arrivals)) == (0, 0))


def test_what_was_arriving_when_the_service_closes_is_answered(checkpoint: Path, question: Question) -> None:
    raw = raw_question(question)
    with live(checkpoint) as served, ExitStack() as connections:
        early = begin(served, connections, raw[:-1])
        served.state.engine.admission.close()
        assert question.post(served.client, "json").json()["error"]["code"] == "draining"
        early.sendall(raw[-1:])
        assert answer(early)[0] == 200


def test_random_arrivals_stay_within_both_limits() -> None:
    rng, refused = Random(5), list[int]()
    arrivals, most, most_bytes = Arrivals(5, 1000), 5, 1000
    with ExitStack() as stack:
        present: list[tuple[int, Arrival]] = []
        for number in range(2000):
            try:
                if not present or rng.random() < 0.3:
                    entered = arrivals.enter(lambda number=number: refused.append(number))
                    present.append((number, stack.enter_context(entered)))
                else:
                    rng.choice(present)[1].add(rng.randrange(1, 400))
            except ServiceError as error:
                assert error.code == "overloaded"
            present = [(at, one) for at, one in present if at not in refused]
            assert len(arrivals) <= most and 0 <= arrivals.bytes <= most_bytes
        assert len(refused) > 100 and len(set(refused)) == len(refused), "each is told once"
    assert (len(arrivals), arrivals.bytes) == (0, 0)


def test_one_body_of_the_largest_size_always_fits() -> None:
    assert Settings(max_body_mib=64, max_arriving_mib=1).max_arriving_bytes == 64 * MIB
    given: dict[str, Any] = json.loads('{"max_arriving": 0}')
    with pytest.raises(ValueError, match="max_arriving"):
        Settings(**given)
