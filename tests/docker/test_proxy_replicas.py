"""Several replicas behind the proxy: found by name, left out when not ready, and never asked twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest

from tests.docker.conftest import FAST
from tests.docker.door import Door, Names, opened
from tests.docker.replica import Stub, serving
from tests.docker.test_proxy import post, refusal
from tests.loopback import free_port, wait_for
from tests.needs import skip_without


@dataclass
class Fleet:
    """Two replicas that are known, and one that is not yet."""

    door: Door
    stubs: dict[str, Stub]
    stops: dict[str, ExitStack]

    def ask(self, times: int, **headers: str) -> dict[str, int]:
        """Ask and return how often each replica answered; every request must succeed."""
        answered: dict[str, int] = {}
        for _ in range(times):
            with self.door.client() as client:
                replica = client.post("/vqa", content=b"x", headers=headers).json()["replica"]
            answered[replica] = answered.get(replica, 0) + 1
        return answered


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    skip_without("haproxy")
    names, port = Names(["127.0.0.2", "127.0.0.3"]), free_port()
    addresses = {"one": "127.0.0.2", "two": "127.0.0.3", "three": "127.0.0.4"}
    with ExitStack() as stack:
        stack.callback(names.close)
        stubs = {name: Stub(name) for name in addresses}
        stops = {name: stack.enter_context(ExitStack()) for name in addresses}
        for name, address in addresses.items():
            stops[name].enter_context(serving(stubs[name], address, port))
        door = stack.enter_context(opened(names, port, **FAST))
        fleet = Fleet(door, stubs, stops)
        wait_for(door.is_up)
        wait_for(lambda: set(fleet.ask(2)) == {"one", "two"})
        yield fleet


def test_replicas_share_the_work_and_come_and_go_by_name(fleet: Fleet) -> None:
    assert set(fleet.ask(20)) == {"one", "two"}
    fleet.door.names.addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    wait_for(lambda: "three" in fleet.ask(3))
    fleet.door.names.addresses = ["127.0.0.4"]
    wait_for(lambda: set(fleet.ask(6)) == {"three"})


def test_questions_about_a_frame_that_has_a_name_go_to_one_replica(fleet: Fleet) -> None:
    names = [f"frame-{number}" for number in range(16)]
    chosen = {name: fleet.ask(4, **{"X-Frame-ID": name}) for name in names}
    assert all(len(replicas) == 1 for replicas in chosen.values())
    assert {next(iter(replicas)) for replicas in chosen.values()} == {"one", "two"}


def test_a_frame_finds_another_replica_when_its_own_is_gone_and_the_others_stay(fleet: Fleet) -> None:
    names = [f"frame-{number}" for number in range(16)]
    before = {name: next(iter(fleet.ask(1, **{"X-Frame-ID": name}))) for name in names}
    fleet.stubs["one"].is_ready = False
    wait_for(lambda: all(fleet.ask(1, **{"X-Frame-ID": name}) == {"two": 1} for name in names))
    fleet.stubs["one"].is_ready = True
    wait_for(lambda: "one" in fleet.ask(6) and "one" in fleet.ask(1, **{"X-Frame-ID": _of(before, "one")}))
    assert {name: next(iter(fleet.ask(1, **{"X-Frame-ID": name}))) for name in names} == before


def _of(chosen: dict[str, str], replica: str) -> str:
    return next(name for name, other in chosen.items() if other == replica)


def test_a_frame_that_everybody_asks_about_does_not_wait_for_its_replica(fleet: Fleet) -> None:
    """Slow questions hold the replica of the frame; before it has all of them, the other one gets some."""
    (own,) = fleet.ask(1, **{"X-Frame-ID": "frame-1"})
    other = fleet.stubs["two" if own == "one" else "one"]
    with ExitStack() as stack:
        for _ in range(6):
            connection = stack.enter_context(closing(fleet.door.connect()))
            connection.sendall(post("/vqa", 1, "X-Frame-ID: frame-1", "X-Do: slow") + b"x")
        wait_for(lambda: sum(stub.in_flight for stub in fleet.stubs.values()) == 6)
        assert 0 < other.in_flight < fleet.stubs[own].in_flight


def test_a_replica_that_drains_is_left_out_and_comes_back(fleet: Fleet) -> None:
    fleet.stubs["one"].is_ready = False
    wait_for(lambda: set(fleet.ask(6)) == {"two"})
    fleet.stubs["one"].is_ready = True
    wait_for(lambda: "one" in fleet.ask(6))


def test_a_replica_that_is_gone_loses_no_request(fleet: Fleet) -> None:
    fleet.stops["one"].close()
    assert fleet.ask(12) == {"two": 12}


class Dying(BaseHTTPRequestHandler):
    """A replica that is ready, takes a request and ends without an answer."""

    protocol_version = "HTTP/1.1"
    taken: ClassVar[list[str]] = []
    answers: ClassVar[int] = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append(self.path)
        if len(self.taken) <= self.answers:
            self.do_GET()
        else:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def dying(address: str, port: int, answers: int = 0) -> Iterator[list[str]]:
    Dying.taken.clear()
    Dying.answers = answers
    with ThreadingHTTPServer((address, port), Dying) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Dying.taken
        finally:
            server.shutdown()
            thread.join()


def test_a_request_that_a_replica_has_taken_is_not_given_to_another(fleet: Fleet) -> None:
    refused: list[httpx.Response] = []

    def is_refused() -> bool:
        with fleet.door.client() as client:
            response = client.post("/vqa", content=b"x")
        refused.extend([response] * (response.status_code != 200))
        return bool(refused)

    with dying("127.0.0.5", fleet.door.upstream_port) as taken:
        fleet.door.names.addresses = ["127.0.0.2", "127.0.0.5"]
        wait_for(is_refused)
        assert refusal(refused[0]) == (502, "bad_gateway") and refused[0].headers["retry-after"] == "1"
        assert len(taken) == 1


def test_a_later_request_of_a_connection_is_not_given_to_another_either(fleet: Fleet) -> None:
    """HAProxy 2.6 closes such a connection without 502, and leaves it to the client to ask again."""
    for stub in fleet.stubs.values():
        stub.is_ready = False
    with dying("127.0.0.5", fleet.door.upstream_port, answers=1) as taken, fleet.door.client() as client:

        def status() -> int:
            return client.post("/vqa", content=b"x").status_code

        wait_for(lambda: status() == 503)
        fleet.door.names.addresses = ["127.0.0.5"]
        wait_for(lambda: status() == 200)
        try:
            assert refusal(client.post("/vqa", content=b"x")) == (502, "bad_gateway")
        except httpx.RemoteProtocolError as closed:
            assert "without sending a response" in str(closed)
        assert len(taken) == 2


def test_without_a_ready_replica_the_proxy_says_so(fleet: Fleet) -> None:
    for stub in fleet.stubs.values():
        stub.is_ready = False
    answers: list[httpx.Response] = []

    def is_refused() -> bool:
        with fleet.door.client() as client:
            answers.append(client.post("/vqa", content=b"x"))
        return answers[-1].status_code != 200

    wait_for(is_refused)
    assert refusal(answers[-1]) == (503, "not_ready") and answers[-1].headers["retry-after"] == "1"
