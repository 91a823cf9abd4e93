"""A service on a real socket, in a thread of this process: tests can leave, trickle, and reach inside."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import uvicorn

from service.api.state import ServiceState
from service.app import create_app
from service.server.connection import Connection
from service.settings import Settings
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import LIMITS, Question, until_ready


@dataclass(frozen=True)
class Live:
    """A running service: its port, what is inside of it, and a client."""

    port: int
    state: ServiceState
    client: httpx.Client
    loop: asyncio.AbstractEventLoop

    @property
    def in_flight(self) -> int:
        return self.state.engine.admission.in_flight

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    @contextmanager
    def busy(self) -> Iterator[threading.Event]:
        """Keep the model thread waiting until the end, or until the event is set."""
        held, release = threading.Event(), threading.Event()
        self.state.engine.model_thread.run(lambda: (held.set(), release.wait()))
        assert held.wait(PATIENCE_S)
        try:
            yield release
        finally:
            release.set()


@contextmanager
def live(
    model: Path | str, loop: Literal["auto", "asyncio", "uvloop"] = "auto", port: int = 0, **settings: Any
) -> Iterator[Live]:
    """Serve with these settings, on a listener made as the service's own is."""
    given = Settings(model=str(model), **{**LIMITS, "depth_model": "none", **settings})
    app = create_app(given)
    config = uvicorn.Config(app, port=port, http=Connection, loop=loop, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, args=([config.bind_socket()],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
            until_ready(client)
            yield Live(port, app.state.service, client, server.servers[0].get_loop())
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def raw_question(question: Question, url: str = "/vqa") -> bytes:
    """Write a question as the bytes of an HTTP request."""
    request: Any = question.post(_Writer(), "json", url)
    body = json.dumps(request).encode()
    headers = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST {url} HTTP/1.1\r\n{headers}".encode() + body


class _Writer:
    def post(self, url: str, json: Any) -> Any:
        return json


def read_until(connection: socket.socket, end: bytes, timeout_s: float = PATIENCE_S) -> bytes:
    """Read until `end` has come; fails on a closed connection."""
    received, stop = b"", time.monotonic() + timeout_s
    while end not in received:
        assert time.monotonic() < stop, received
        piece = connection.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send bytes and return status and body of what comes back."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as connection:
        connection.sendall(request)
        head, _, rest = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
        return int(head.split()[1]), rest
