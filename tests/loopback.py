"""Ports and timeouts for tests that start processes; imports nothing slow."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

PATIENCE_S = 120
"""How long to wait for what must come: free when it comes, and busy machines stand still for seconds."""
START_S = 3 * PATIENCE_S
"""The same for a process that first imports torch and loads a model."""

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


def wait_for(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until something is so, and fail if it does not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
