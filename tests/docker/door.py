"""The shipped proxy as a process of its own, with a name server that says where replicas are."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.overhead.proxy import NameServer as Names
from tests.loopback import PATIENCE_S, free_port, wait_for
from tests.needs import program

CONFIGURATION = Path(__file__).parents[2] / "docker" / "proxy" / "haproxy.cfg"
HAPROXY = program("haproxy")


@dataclass
class Door:
    """Where the proxy listens, and the names it asks for."""

    port: int
    own_port: int
    upstream_port: int
    names: Names

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the public side, without TLS, whose certificates take 25 ms to load."""
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False, verify=False, **options)

    def connect(self, source: str = "127.0.0.1", timeout_s: float = PATIENCE_S) -> socket.socket:
        """Open a raw connection from a loopback address."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s, (source, 0))

    def is_up(self) -> bool:
        """Say whether every backend has found a replica that is ready."""
        with httpx.Client(trust_env=False, verify=False) as client:
            text = client.get(f"http://127.0.0.1:{self.own_port}/metrics").text
        active = dict(re.findall(r'haproxy_backend_active_servers\{proxy="(\w+)"\} (\d+)', text))
        return "0" not in (active["answers"], active["frames"], active["uploads"])


@contextmanager
def opened(names: Names, upstream_port: int, **settings: str) -> Iterator[Door]:
    """Run the shipped configuration, changed by environment variables alone."""
    assert HAPROXY
    door = Door(free_port(), free_port(), upstream_port, names)
    ours = {
        "PROXY_BIND": f"127.0.0.1:{door.port}",
        "PROXY_OWN_BIND": f"127.0.0.1:{door.own_port}",
        "PROXY_UPSTREAM": f"service.test:{upstream_port}",
        "PROXY_RESOLVER": f"127.0.0.1:{names.port}",
    }
    command = [HAPROXY, "-db", "-f", str(CONFIGURATION)]
    environment = {**os.environ, **ours, **settings}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        ports = door.port, door.own_port
        wait_for(lambda: all(map(_listens, ports)) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0].decode()
        yield door
    finally:
        process.kill()
        process.communicate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send raw bytes and read until the other side closes or nothing comes any more."""
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
    return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    read = b""
    with suppress(ConnectionResetError, TimeoutError):
        while part := connection.recv(65536):
            read += part
    return read
