"""The benchmark's table: every spec beside none, on the same images, from the times of a made-up clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import vlm.throughput
from tests.vlm.adapters import tiny
from tests.vlm.test_classify import classifier
from tosa import MergeSpec, PlanError
from vlm import Throughput
from vlm import benchmark as run_benchmark


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let every run take as long as the next of these seconds says, and the last one from then on."""
    seconds: list[float] = []
    now = 0.0

    def ticks() -> Iterator[float]:
        nonlocal now
        while True:
            yield now
            now += seconds.pop(0) if len(seconds) > 1 else seconds[0]
            yield now

    reading = ticks()
    monkeypatch.setattr("vlm.throughput.time.perf_counter", lambda: next(reading))
    return seconds


def test_ratios_are_those_of_each_round(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    # The warm-up in reverse (merged, none), then none, merged; then merged, none.
    clock[:] = [9.0, 9.0, 2.0, 1.0, 1.0, 3.0]
    rows = run_benchmark(classifier("average"), MergeSpec("tome", keep_ratio=0.5), batch=4, rounds=2)
    assert rows == (
        Throughput(MergeSpec(), 36, 1.6, 1.0, 1.0, 1.0),
        Throughput(MergeSpec("tome", keep_ratio=0.5), 18, 4.0, 2.5, 2.0, 3.0),
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "VisionTransformer, 4 images of 48 x 48 px, cpu, float32, medians of 2 rounds"
    assert printed[1].split() == ["tokens", "out", "images/s", "against", "none", "(range)"]
    assert printed[2].split() == ["none", "36", "1.6", "1.00", "(1.00", "to", "1.00)"]
    assert printed[3].split() == ["tome", "0.5", "18", "4.0", "2.50", "(2.00", "to", "3.00)"]


@pytest.mark.parametrize("name", ["deit", "dinov3", "naflex", "hf dinov3", "siglip", "sam, cut windows"])
def test_towers_are_timed_too(name: str, clock: list[float]) -> None:
    clock[:] = [1.0]
    specs = [MergeSpec("cubist", keep_ratio=0.5), MergeSpec("pool", keep_ratio=0.5)]
    rows = run_benchmark(tiny(name), specs, batch=2, rounds=2)
    assert [row.spec.method for row in rows] == ["none", "cubist", "pool"]
    assert [row.speed_up for row in rows] == [1.0, 1.0, 1.0]


def test_it_runs_with_a_real_clock_and_with_methods_that_need_depth() -> None:
    rows = run_benchmark(classifier("hf vit"), MergeSpec("tosa", keep_ratio=0.25), batch=1, rounds=1)
    assert all(row.images_per_s > 0 and row.least <= row.speed_up <= row.most for row in rows)


def test_nothing_is_computed_for_a_spec_that_no_plan_can_satisfy(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*args: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(vlm.throughput, "encode", encode)
    with pytest.raises(PlanError):
        run_benchmark(classifier("average"), MergeSpec("tome", keep_ratio=0.001))


def test_half_precision_is_timed_in_half_precision(capsys: pytest.CaptureFixture[str]) -> None:
    run_benchmark(
        classifier("average").to(torch.bfloat16), MergeSpec("pool", keep_ratio=0.25), batch=1, rounds=1
    )
    assert "bfloat16" in capsys.readouterr().out
