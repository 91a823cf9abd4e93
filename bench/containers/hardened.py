"""One container of the service, locked in as docs/containers.md starts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.containers.engine import Engine
from bench.load.serving import free_port

HARDENED = (
    *("--read-only", "--tmpfs", "/tmp:size=256m,noexec,nosuid,nodev", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--pids-limit", "256"),
)
IMAGE = "tosa-vqa:cpu"


@contextmanager
def running(engine: Engine, *options: str) -> Iterator[tuple[str, str]]:
    """Run the service and yield the container and its address."""
    port = free_port()
    publish = f"127.0.0.1:{port}:8000"
    container = engine("run", "--detach", "--publish", publish, *HARDENED, *options, IMAGE)
    try:
        yield container, f"http://127.0.0.1:{port}"
    finally:
        engine.tried("rm", "--force", "--time", "0", container)
