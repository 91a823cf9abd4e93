"""The compose file as users start it, under a project name of its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.containers.compose_file import COMPOSE
from bench.containers.engine import ROOT, Engine, EngineFailed, kill
from bench.waiting import START_S, wait_for

URL = "http://127.0.0.1:8080"
PROJECT = "tosa-vqa-test"
PODMAN_COMPOSE = ROOT / ".venv-compose" / "bin" / "podman-compose"
ALWAYS = ("proxy", "prometheus")
"""Beside a service. Grafana is left out: its image cannot be made from Debian's packages."""


@dataclass(frozen=True)
class Stack:
    """A project of compose.

    profile: which of the services it starts. threads: torch's, in each replica. files: beside compose.yaml.
    """

    engine: Engine
    profile: str = "cpu"
    threads: int = 2
    files: tuple[Path, ...] = ()

    def __call__(self, *words: str, timeout_s: float = 300) -> str:
        """Run a command of compose and return what it printed. Raises EngineFailed."""
        files = [word for path in (COMPOSE, *self.files) for word in ("-f", str(path))]
        done = subprocess.run(
            [*self._program(), "-p", PROJECT, *files, *words],
            env={**self.engine.environment, **self._settings()},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise EngineFailed(f"compose {' '.join(words)}\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout

    def _settings(self) -> dict[str, str]:
        return {"COMPOSE_PROFILES": self.profile, "TOSA_VQA_NUM_THREADS": str(self.threads)}

    def _program(self) -> list[str]:
        return [str(PODMAN_COMPOSE)] if self.engine.is_podman else [self.engine.program, "compose"]

    def up(self, *services: str, replicas: int = 1) -> None:
        scale = (f"--scale={services[0]}={replicas}",) if replicas > 1 else ()
        self("up", "--detach", *scale, *ALWAYS, *services)

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's containers that run, in their order."""
        label = f"label=com.docker.compose.project={PROJECT}"
        named = f"label=com.docker.compose.service={service}"
        printed = self.engine("ps", "--filter", label, "--filter", named, "--format", "{{.Names}}")
        return sorted(printed.split())

    def inspect(self, container: str, form: str) -> str:
        return self.engine("inspect", "--format", form, container)

    def health(self, container: str) -> str:
        return self.inspect(container, "{{.State.Health.Status}}")

    def get(self, container: str, address: str) -> str:
        """Fetch an address from inside a container that has wget, as its health check does."""
        return self.engine("exec", container, "wget", "-q", "-O", "-", address)

    def is_whole(self) -> bool:
        """Say whether proxy and Prometheus find a service that is ready."""
        try:
            (proxy,) = self.containers("proxy")
            return self.ready_replicas(proxy) > 0
        except (EngineFailed, ValueError):
            return False

    def kill(self, container: str) -> None:
        """Kill a container behind the back of the engine, and wait until that has started it again."""
        first = self.inspect(container, "{{.State.Pid}}")
        kill(self.engine, container)
        wait_for(lambda: self.inspect(container, "{{.State.Pid}}") not in ("0", first), START_S)

    def ready_replicas(self, proxy: str) -> int:
        line = 'haproxy_backend_active_servers{proxy="answers"} '
        metrics = self.get(proxy, "http://127.0.0.1:8404/metrics").splitlines()
        return next(int(each.removeprefix(line)) for each in metrics if each.startswith(line))

    def wait_for_replicas(self, number: int) -> None:
        (proxy,) = self.containers("proxy")
        wait_for(lambda: self.ready_replicas(proxy) == number, START_S)


@contextmanager
def started(
    engine: Engine,
    *services: str,
    profile: str = "cpu",
    replicas: int = 1,
    threads: int = 2,
    is_timed: bool = False,
    files: tuple[Path, ...] = (),
) -> Iterator[Stack]:
    """Start the stack with some services beside proxy and Prometheus, and remove it with its volumes.

    is_timed: without our health checks, whose calls of podman would take a fifth of a core.
    """
    stack = Stack(engine, profile, threads, files)
    stack("down", "--volumes", "--timeout=0", "--remove-orphans")
    with nullcontext() if is_timed else health_checks(engine):
        try:
            stack.up(*services, replicas=replicas)
            yield stack
        finally:
            stack("down", "--volumes", "--timeout=0", "--remove-orphans")


@contextmanager
def health_checks(engine: Engine) -> Iterator[None]:
    """Run the health checks where podman has no systemd whose timers would."""
    if not engine.is_podman or os.path.isdir("/run/systemd/system"):
        yield
        return
    ended = threading.Event()

    def check() -> None:
        while not ended.wait(5):
            for name in engine.tried("ps", "--format", "{{.Names}}").stdout.split():
                engine.tried("healthcheck", "run", name)

    checker = threading.Thread(target=check)
    checker.start()
    try:
        yield
    finally:
        ended.set()
        checker.join()


def seconds_since(began: float) -> float:
    return round(time.monotonic() - began, 1)
