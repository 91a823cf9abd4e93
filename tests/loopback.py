"""Ports and timeouts for tests that start processes; imports nothing slow."""

import os
import socket
from contextlib import suppress
from itertools import count

from bench.waiting import PATIENCE_S, START_S, wait_for

__all__ = ["PATIENCE_S", "START_S", "free_port", "listens", "wait_for"]

# Below the ports that systems give to clients, and from a place of its own in every process: a server that
# takes seconds to start must find its port still free.
_ports = count(os.getpid() * 101)


def free_port() -> int:
    """Return a port that nobody listens on, and that no other test of this run is given."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("", port))
            return port


def listens(port: int) -> bool:
    """Ask whether a process accepts connections at a port of the loopback."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
