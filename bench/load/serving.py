"""Start a server as a process of its own, wait until it answers, and stop it and all its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from evals.environment import Environment, environment_of

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 45


class ServerFailed(Exception):
    """The server did not start; the text holds the end of its log."""


@dataclass(frozen=True)
class Serving:
    """A running server: its address, and the process at the head of its tree."""

    url: str
    process: psutil.Process
    start_s: float
    interpreter: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> Environment:
        """Return the environment of the server's interpreter, and the event loop it has loaded."""
        return environment_of(self.interpreter, self.env) | {"event_loop": self.event_loop()}

    def event_loop(self) -> str | None:
        """Return uvloop if the server has loaded it, else asyncio; None where that cannot be read."""
        try:
            maps = [entry.path for process in self.tree() for entry in process.memory_maps()]
        except (AttributeError, psutil.Error):  # macOS shows no maps
            return None
        return "uvloop" if any("uvloop" in path for path in maps) else "asyncio"

    def tree(self) -> list[psutil.Process]:
        """Return the process and all its children that are alive."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def serving(
    command: Sequence[str],
    ready: str = "/readyz",
    env: Mapping[str, str] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    port: int | None = None,
) -> Iterator[Serving]:
    """Run `command` for the length of the block; {port} in it stands for `port`, or a free loopback port."""
    port = free_port() if port is None else port
    filled = [part.replace("{port}", str(port)) for part in command]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            filled,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url + ready, process, log, start_timeout_s)
            start_s = time.monotonic() - began
            yield Serving(url, psutil.Process(process.pid), start_s, filled[0], env or {})
        finally:
            stop(process)


def ours(*options: str) -> list[str]:
    """Return the command that runs this service in the environment of this process."""
    return [sys.executable, "-m", "service", "serve", "--port", "{port}", *options]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process, then kill by id the children that it left behind."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(tree, timeout=1)
    for orphan in left:
        orphan.kill()
    psutil.wait_procs(left, timeout=10)


def wait_until_ready(
    url: str, process: subprocess.Popen[bytes], log: IO[str], timeout_s: float = START_TIMEOUT_S
) -> None:
    """Ask until it answers 200. Raises ServerFailed if the process ends, or not in `timeout_s`."""
    end = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServerFailed(f"exit code {process.returncode}\n{_end_of(log)}")
        try:
            with opener.open(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise ServerFailed(f"not ready after {timeout_s:g} s\n{_end_of(log)}")


def _end_of(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-3000:]
