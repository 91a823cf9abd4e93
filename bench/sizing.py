"""Compute how many cores a rate of questions needs, from measured costs and the assumptions below.

Nothing is measured here; `docs/scale.md` shows the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

RESULTS = Path(__file__).parent / "results"
RATES = (10, 100, 1000)
MODES = ("none", "tosa", "cubist")

BESIDE_VISION_MS: Mapping[str, float] = MappingProxyType(
    {"decode": 6.8, "preprocess": 2.0, "depth": 1.6, "prefill": 7.0, "generate": 1.6}
)
"""Stages of the answer in docs/ask.md: one 384 px frame with depth, one word said, on two cores."""
ONCE_A_FRAME = ("preprocess", "depth")
"""Stages besides vision that a cached frame skips; it is still decoded, as its key comes from its pixels."""


@dataclass(frozen=True)
class Assumed:
    """The assumptions; none is measured."""

    busy: float = 0.7
    """Share of the time that the cores may be busy, so that bursts wait and are not refused."""
    cores_used: int = 2
    """Cores busy during a measured millisecond; taken as all of them, which overstates the cost."""
    machine_cores: int = 16
    """Cores of one machine."""
    replica_cores: int = 2
    """Cores of one replica."""
    replica_mib: int = 900
    """Memory of one replica of the embedded model, without its caches."""


def core_ms(vision_ms: float, known: float, assumed: Assumed) -> float:
    """Return the core milliseconds of one question when a share `known` of the frames is cached."""
    encoded = vision_ms + sum(BESIDE_VISION_MS[name] for name in ONCE_A_FRAME)
    always = sum(value for name, value in BESIDE_VISION_MS.items() if name not in ONCE_A_FRAME)
    return assumed.cores_used * (always + (1 - known) * encoded)


def cores(rate: float, cost_ms: float, assumed: Assumed) -> int:
    """Return the cores that `rate` questions a second of this cost keep busy for `busy` of the time."""
    return math.ceil(rate * cost_ms / 1000 / assumed.busy)


def rows(known: float, assumed: Assumed | None = None) -> list[list[str]]:
    """Return one row for each mode and rate: mode, rate, core ms, cores, replicas, machines, memory."""
    assumed = assumed or Assumed()
    return [
        _row(mode, rate, core_ms(vision_ms, known, assumed), assumed)
        for mode, vision_ms in _vision_ms().items()
        for rate in RATES
    ]


def _row(mode: str, rate: int, cost_ms: float, assumed: Assumed) -> list[str]:
    needed = cores(rate, cost_ms, assumed)
    replicas = math.ceil(needed / assumed.replica_cores)
    machines = math.ceil(needed / assumed.machine_cores)
    memory_gib = replicas * assumed.replica_mib / 1024
    return [
        mode,
        f"{rate:,}",
        f"{cost_ms:.0f}",
        f"{needed:,}",
        f"{replicas:,}",
        f"{machines:,}",
        f"{memory_gib:.0f}",
    ]


def _vision_ms() -> dict[str, float]:
    runs = json.loads((RESULTS / "vision_latency.json").read_text())["runs"]
    named = {run["method"]: run for run in runs}
    return {
        mode if mode == "none" else f"{mode} {named[mode]['keep_ratio']:g}": named[mode]["median_ms"]
        for mode in MODES
    }
