"""The servers that are compared, how each is started, and the fixed work that each is given."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.load.serving import ROOT, ServerFailed

MODE = "tosa 0.25"
NO_LIMIT = 1024
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""The environment of peers with dependencies of their own; `make peers` builds it."""


@dataclass(frozen=True)
class Arm:
    """One server: `words` follow `python -m`, {port} among them.

    limited: its variables under overload; None for a server that refuses nothing. package: what the server
    is made of, if that is a package of the peers' environment; the others run in the ordinary one.
    """

    title: str
    words: tuple[str, ...]
    ready: str
    probe: str
    env: Mapping[str, str] = field(default_factory=dict)
    limited: Mapping[str, str] | None = None
    package: str | None = None

    def command(self) -> list[str]:
        """Return the command, {port} still in it. Raises ServerFailed if the environment is missing."""
        return [str(self.interpreter()), "-m", *self.words]

    def interpreter(self) -> Path:
        """Return the Python that runs the server. Raises ServerFailed if there is none."""
        if self.package is None:
            return Path(sys.executable)
        if not PEERS_PYTHON.exists():
            raise ServerFailed(f"{self.package} has no environment: make peers builds it")
        return PEERS_PYTHON


RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_DEDUP_LOGS": "0"}
ARMS = {
    "naive": Arm("FastAPI, predicting on the loop", ("bench.peers.naive", "{port}"), "/livez", "/livez"),
    "executor": Arm(
        "FastAPI, one-thread executor",
        ("bench.peers.executor", "{port}"),
        "/livez",
        "/livez",
        {"PEER_SLOTS": str(NO_LIMIT)},
        {"PEER_SLOTS": "24"},
    ),
    "litserve": Arm(
        "LitServe, batches of 8",
        ("bench.peers.lit", "{port}"),
        "/health",
        "/health",
        package="litserve",
    ),
    "ray": Arm(
        "Ray Serve, one replica",
        ("bench.peers.ray_default", "{port}"),
        "/vqa",
        "/-/healthz",
        RAY,
        package="ray",
    ),
    "ours": Arm(
        "tosa-vqa serve",
        ("service", "serve", "--port", "{port}"),
        "/readyz",
        "/livez",
        {"TOSA_VQA_MAX_QUEUE": str(NO_LIMIT)},
        {},
    ),
}
"""Without limits where all requests are to be answered; with their own where some are to be refused."""
DIRECT, OURS = "direct", "ours"


@dataclass(frozen=True)
class Work:
    """The work of every arm; the same numbers for all, however long they take."""

    torch_threads: int = 1
    frames: int = 128
    requests: Mapping[str, int] = field(default_factory=lambda: {"1": 20, "4": 32, "16": 80, "64": 128})
    abandoned: int = 20
    abandoned_times: int = 3
    overload_factor: int = 24
    overload_s: float = 3.0
    max_others: float = 0.08
    repeats: int = 2

    def as_json(self) -> dict[str, Any]:
        """Return the fields; rounds of different work are not comparable."""
        return {**asdict(self), "requests": dict(self.requests)}

    def env(self) -> dict[str, str]:
        """Return the environment variables of every server."""
        threads = str(self.torch_threads)
        return {
            "OMP_NUM_THREADS": threads,
            "TOSA_VQA_NUM_THREADS": threads,
            "TOSA_VQA_DEPTH_MODEL": "none",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
