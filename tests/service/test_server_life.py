"""How a server process ends: asked once, asked twice, while it loads, for reasons of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.server.uvicorn_server import LAST_WORDS_S, LINGER_S
from tests.loopback import PATIENCE_S, START_S, free_port, wait_for
from tests.service.conftest import Question

ROOT = Path(__file__).parents[2]
LONG_S = 5 * PATIENCE_S
"""Longer than any test waits: what ends sooner was ended."""
PAUSE_S = 3.0
"""Time in which a server is not ready any more and still answers; a machine may stand still in it."""


class Running:
    """A server process, and the addresses to ask it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=PATIENCE_S,
            trust_env=False,
            headers={"connection": "close"},
        )

    def status(self, within_s: float = PATIENCE_S) -> int | None:
        try:
            return self.client.get("/readyz", timeout=within_s).status_code
        except httpx.TransportError:
            return None

    def until(self, status: int) -> None:
        """Wait until /readyz has this status; fail at once if the process has ended."""

        def is_so() -> bool:
            assert self.process.poll() is None, self.end()[1]
            return self.status() == status

        wait_for(is_so, START_S)

    def send(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written."""
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert not any(child.is_running() for child in family)
        return self.process.returncode, output


@contextmanager
def running(*command: object, port: int, **environment: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    server = Running(process, port)
    try:
        with server.client:
            yield server
    finally:
        process.kill()
        process.communicate()


@contextmanager
def stub(
    loading_s: float = 0,
    pause_s: float = 0,
    timeout_s: float = LONG_S,
    last_words_s: float = LAST_WORDS_S,
    linger_s: float = LINGER_S,
    kind: str = "ours",
) -> Iterator[Running]:
    port = free_port()
    words = ("-m", "tests.service.stub_server", kind, port)
    limits = (loading_s, pause_s, timeout_s, last_words_s, linger_s)
    with running(*words, *limits, port=port) as server:
        server.until(503 if loading_s else 200)
        yield server


class Load:
    """Clients that keep their connections and ask one question after the other until nobody listens."""

    def __init__(self, server: Running, clients: int, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        self.seen: list[tuple[float, str]] = []
        self._server, self._ask = server, ask
        self._threads = [threading.Thread(target=self._live, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def counts(self, since: float = 0) -> Counter[str]:
        """Count how requests ended that began after a moment."""
        return Counter(how for began, how in self.seen if began > since)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _live(self) -> None:
        with httpx.Client(
            base_url=self._server.client.base_url, timeout=PATIENCE_S, trust_env=False
        ) as client:
            how = ""
            while how not in ("refused", "lost"):
                began = time.monotonic()
                how = self._outcome(client)
                self.seen.append((began, how))

    def _outcome(self, client: httpx.Client) -> str:
        try:
            response = self._ask(client)
        except httpx.ConnectError:
            return "refused"
        except httpx.HTTPError:
            return "lost"
        if response.status_code == 503 and response.headers["retry-after"]:
            assert response.json()["error"]["code"] == "draining"
            time.sleep(0.01)
        return str(response.status_code)


def work(seconds: float, size: int = 2000) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: client.post(f"/work?seconds={seconds}", content=bytes(size))


@contextmanager
def asking(server: Running, seconds: float) -> Iterator[Future[httpx.Response]]:
    """Have one more request open for so long."""
    before = server.client.get("/begun").json()
    with ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{server.port}/work?seconds={seconds}"
        request = pool.submit(httpx.post, url, timeout=LONG_S, trust_env=False)
        wait_for(lambda: server.client.get("/begun").json() > before)
        yield request


def drained(server: Running, load: Load, sig: signal.Signals) -> tuple[float, int, str]:
    """Stop a server under load: the moment from which it was not ready any more, exit code, output."""
    wait_for(lambda: load.counts()["200"] > 20)
    server.send(sig)
    wait_for(lambda: server.status() != 200)
    unready_at = time.monotonic()
    code, output = server.end()
    load.join()
    return unready_at, code, output


def test_nothing_is_lost() -> None:
    with stub(pause_s=PAUSE_S) as server, asking(server, PAUSE_S + 1) as long:
        load = Load(server, 6, work(0.02))
        unready_at, code, output = drained(server, load, signal.SIGINT)
        assert long.result(PATIENCE_S).status_code == 200
    assert code == 0 and "Traceback" not in output and "Error" not in output
    assert load.counts(unready_at)["200"] > 0
    assert set(load.counts()) <= {"200", "503", "refused"}, load.counts()


def test_a_plain_uvicorn_would_be_found_out() -> None:
    with stub(kind="plain") as server:
        load = Load(server, 6, work(0.02))
        unready_at, *_ = drained(server, load, signal.SIGTERM)
    assert load.counts(unready_at)["200"] == 0


def test_a_refused_upload_sees_its_refusal_and_clients_are_sent_away() -> None:
    url, upload = "http://127.0.0.1", work(0, 3_000_000)
    with stub(pause_s=LONG_S, linger_s=PATIENCE_S) as server:
        server.send(signal.SIGTERM)
        server.until(503)
        with httpx.Client(base_url=f"{url}:{server.port}", timeout=PATIENCE_S, trust_env=False) as client:
            assert client.get("/readyz").headers["connection"] == "close"
            seen = [upload(client) for _ in range(3)]
            assert client.get("/close").status_code == 200
            seen += [upload(client) for _ in range(3)]
        assert [answer.status_code for answer in seen] == [200] * 3 + [503] * 3
        assert all(answer.headers["connection"] == "close" for answer in seen)


def test_a_second_signal_cuts() -> None:
    with stub(pause_s=LONG_S) as server, asking(server, LONG_S) as long:
        server.send(signal.SIGTERM)
        server.until(503)
        assert server.process.poll() is None and not long.done()
        server.send(signal.SIGTERM)
        code, output = server.end()
        assert isinstance(long.exception(PATIENCE_S), httpx.HTTPError)
    assert code == 128 + signal.SIGTERM and "1 open requests were aborted" in output


def test_what_takes_longer_than_the_time_to_drain_is_cut_and_not_called_a_success() -> None:
    with stub(timeout_s=0.3) as server, asking(server, LONG_S) as long:
        server.send(signal.SIGTERM)
        code, output = server.end()
        assert isinstance(long.exception(PATIENCE_S), httpx.HTTPError)
    assert code == 1 and "1 open requests were aborted" in output


def test_asked_while_loading() -> None:
    with stub(loading_s=LONG_S, pause_s=LONG_S) as server:
        server.send(signal.SIGINT)
        code, output = server.end()
    assert code == 0 and "Traceback" not in output


def test_the_service_may_end_the_process() -> None:
    """What is nearly done is let go on for a moment."""
    with (
        stub(pause_s=LONG_S, last_words_s=3) as server,
        asking(server, LONG_S) as long,
        asking(server, 0.5) as short,
    ):
        assert server.client.get("/end").status_code == 200
        code, output = server.end()
        assert short.result(PATIENCE_S).status_code == 200
        assert isinstance(long.exception(PATIENCE_S), httpx.HTTPError)
    assert code == 70 and "the process cannot go on" in output


def test_an_event_loop_that_hangs_does_not_keep_the_process() -> None:
    with stub() as server, ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(server.client.get, "/hang")
        wait_for(lambda: server.status(0.5) is None)
        server.send(signal.SIGTERM)
        time.sleep(0.2)
        assert server.process.poll() is None
        server.send(signal.SIGTERM)
        assert server.end()[0] == 128 + signal.SIGTERM
        assert isinstance(hanging.exception(PATIENCE_S), httpx.HTTPError)


def test_an_address_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("-m", "tests.service.stub_server", "ours", port, *[0] * 5, port=port) as server:
            code, output = server.end()
    assert code == 1 and "in use" in output and "Traceback" not in output


def handles(pid: int, sig: signal.Signals) -> bool:
    """Say whether a process does something of its own at a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (sig - 1) & 1)


@pytest.fixture
def served(checkpoint: Path) -> Iterator[Running]:
    """Start `tosa-vqa serve` on a tiny checkpoint; it is not ready yet."""
    port = free_port()
    words = ("-m", "service", "serve", "--port", port, "--model", checkpoint, "--depth-model", "none")
    with running(*words, port=port, TOSA_VQA_DRAIN_PAUSE_S=str(PAUSE_S), TOSA_VQA_MAX_QUEUE="64") as server:
        yield server


def test_the_service_loses_nothing(served: Running, question: Question) -> None:
    served.until(200)
    headers = served.client.get("/livez").headers
    assert "server" not in headers
    load = Load(served, 4, lambda client: question.post(client, "multipart"))
    unready_at, code, output = drained(served, load, signal.SIGTERM)
    assert code == 0 and "Traceback" not in output and "ERROR" not in output, output
    assert load.counts(unready_at)["200"] > 0
    assert set(load.counts()) <= {"200", "503", "refused"}, load.counts()


@pytest.mark.parametrize("at_work", ["importing", "loading"])
def test_the_service_ends_while_it_starts(served: Running, at_work: str) -> None:
    if at_work == "importing":
        wait_for(lambda: handles(served.process.pid, signal.SIGTERM), START_S)
    else:  # or just ready, where a machine stands still while it loads
        wait_for(lambda: served.status() is not None, START_S)
    served.send(signal.SIGTERM)
    code, output = served.end()
    assert code == 0 and "Traceback" not in output, output
