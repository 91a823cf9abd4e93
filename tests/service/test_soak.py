"""A few seconds of `make soak`, and twins with a planted leak of each kind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import service.api.receiving
from service.api.lifecycle import read_body
from tests.fuzz.soak import SETTINGS, Held, Known, Report, learn, soak
from tests.service.live import Live, live

QUICK = {"growth_mib": 32.0, "slope_mib_per_minute": 1e9}  # so short a run says nothing about the slope
REQUESTS = 50
"""Each leaks 1 MiB where it leaks: much more than may be gained, however long they take."""


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, **SETTINGS) as served:
        yield served


@pytest.fixture(scope="module")
def known(served: Live) -> list[Known]:
    return learn(served, 12)


def test_nothing_grows_and_nobody_hears_a_wrong_answer(served: Live, known: list[Known]) -> None:
    report = soak(served, known, warm_s=1, seconds=0, seed=1, requests=REQUESTS)
    assert report.faults(**QUICK) == [], "\n".join(report.lines())
    assert report.seen.total() >= REQUESTS and len(report.seen) >= 6, report.seen


@pytest.mark.long
@pytest.mark.parametrize("kind", ["memory", "files", "threads"])
def test_a_leak_is_found(
    served: Live, known: list[Known], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    kept: list[Any] = []
    forget = threading.Event()

    async def leaking(*given: Any) -> bytes:
        if kind == "memory":
            kept.append(os.urandom(2**22))  # in all far above what the kernel may take back meanwhile
        elif kind == "files" and len(kept) < 20:
            kept.append(open(os.devnull))  # noqa: SIM115
        elif kind == "threads" and len(kept) < 5:
            kept.append(threading.Thread(target=forget.wait))
            kept[-1].start()
        return await read_body(*given)

    try:
        monkeypatch.setattr(service.api.receiving, "read_body", leaking)
        report = soak(served, known, warm_s=0, seconds=0, seed=1, requests=REQUESTS)
    finally:
        forget.set()
        for one in kept:
            if not isinstance(one, bytes):
                one.join() if kind == "threads" else one.close()
    faults = report.faults(**QUICK)
    assert any(kind in fault for fault in faults), "\n".join(report.lines())


def test_slow_growth_is_found_by_its_slope() -> None:
    """6 MiB a minute for five minutes: 30 MiB, and in the second half a straight line."""
    held = Held(0.0, 10, 5)
    flat = Report(memory_mib=[(second, 6 * min(second, 150) / 60) for second in range(300)])
    growing = Report(memory_mib=[(second, 6 * second / 60) for second in range(300)])
    for report in (flat, growing):
        report.before = report.after = held
    bounds = {"growth_mib": 64.0, "slope_mib_per_minute": 4.0}
    assert flat.faults(**bounds) == []
    assert growing.faults(**bounds) == ["memory grows by 6.0 MiB a minute"]
