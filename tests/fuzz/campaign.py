"""Feed damaged files to a decoder: only its own errors, never slow, never growing, no pixels missing."""

from __future__ import annotations

import ctypes
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from depth import DepthError, DepthMap
from tests.fuzz.mutate import mutate
from tests.fuzz.other_formats import OPTIONS
from tests.fuzz.seeds import seeds, shorten

LIMIT_MS = 250.0
GROWTH_MIB = 16.0
_SHORT, _WHOLE = 0.15, 0.05  # shares of files that lack pixels, and that lack nothing
_PAGE_BYTES = 4096

Decode = Callable[..., DepthMap]
"""Takes the bytes, and what has to be said with them."""


@dataclass
class Summary:
    """Count what happened; `failures` are sentences with the file that caused them."""

    files: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, bytes]] = field(default_factory=list)
    worst_ms: float = 0.0
    growth_mib: float = 0.0

    def lines(self) -> Iterator[str]:
        """Describe the run for people."""
        yield "files: " + ", ".join(f"{name} {count}" for name, count in sorted(self.files.items()))
        yield "outcomes: " + ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        yield f"slowest file: {self.worst_ms:.1f} ms of CPU; memory grew by {self.growth_mib:.1f} MiB"
        yield f"failures: {len(self.failures)}"
        for sentence, data in self.failures[:10]:
            yield f"  {sentence} ({len(data)} bytes: {data[:48].hex()}...)"


def run(
    decode: Decode, number: int, seed: int, limit_ms: float = LIMIT_MS, growth_mib: float = GROWTH_MIB
) -> Summary:
    """Try `number` files made from `seed`. Time is that of the CPU, since others may use the machine too."""
    rng, summary, settled = Random(seed), Summary(), 0.0
    good = [(container, data, decode(data, **OPTIONS.get(container, {}))) for container, data in seeds()]
    for index in range(number):
        container, data, whole = rng.choice(good)
        kind = _kind(rng)
        file = {"short": shorten, "whole": lambda _, data, __: data, "mutated": _mutated}[kind](
            container, data, rng
        )
        told = partial(decode, **OPTIONS.get(container, {}))
        _judge(summary, told, file, whole, f"{kind} {container}", limit_ms)
        if index == number // 5:
            settled = resident_mib()
    summary.growth_mib = max(0.0, resident_mib() - settled)
    if summary.growth_mib > growth_mib:
        summary.failures.append((f"memory grew by {summary.growth_mib:.1f} MiB", b""))
    return summary


def resident_mib() -> float:
    """Return the memory this process occupies without what is free in its heap; 0 if no system says."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0.0
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)
    return int(statm.read_text().split()[1]) * _PAGE_BYTES / (1 << 20)


def _kind(rng: Random) -> str:
    draw = rng.random()
    return "short" if draw < _SHORT else "whole" if draw < _SHORT + _WHOLE else "mutated"


def _mutated(container: str, data: bytes, rng: Random) -> bytes:
    return mutate(data, container, rng)


def _judge(
    summary: Summary, decode: Decode, file: bytes, whole: DepthMap, name: str, limit_ms: float
) -> None:
    summary.files[name] += 1
    started = time.thread_time()
    try:
        depth, outcome = decode(file), "accepted"
    except DepthError as error:
        depth, outcome = None, error.reason
    except Exception as error:
        depth, outcome = None, "raised"
        summary.failures.append((f"{name}: raised {type(error).__name__}: {error}", file))
    took_ms = 1000 * (time.thread_time() - started)
    summary.outcomes[outcome] += 1
    summary.worst_ms = max(summary.worst_ms, took_ms)
    if took_ms > limit_ms:
        summary.failures.append((f"{name}: took {took_ms:.0f} ms", file))
    if name.startswith("whole") and depth is None:
        summary.failures.append((f"{name}: refused as {outcome}", file))
    if name.startswith("short") and depth is not None and not _same(depth, whole):
        summary.failures.append((f"{name}: accepted with pixels missing", file))


def _same(depth: DepthMap, whole: DepthMap) -> bool:
    """Say whether nothing is missing after all: what was cut off can be an end code that says nothing."""
    return np.array_equal(depth.values, whole.values) and np.array_equal(depth.valid, whole.valid)
