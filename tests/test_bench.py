"""The benchmarks run, on a few frames: their numbers have the right form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench import merge_cost, pareto
from bench.prop_attn import measure as measure_attention
from bench.vision_latency import measure
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import Vlm, adapt, encode, load_vlm


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_vlm("room-tiny")


def test_vision_latency(vlm: Vlm) -> None:
    specs = (MergeSpec(), MergeSpec(method="tosa", keep_ratio=0.25))
    runs = measure(vlm, [make_plan(spec, vlm.shape) for spec in specs], rounds=1)
    assert [run["method"] for run in runs] == ["none", "tosa"]
    assert runs[0]["time_ratio"] == 1 and runs[1]["tokens_out"] == 144
    assert 0 < runs[1]["flops_ratio"] < 1 and runs[1]["median_ms"] > 0


@pytest.mark.parametrize("name", merge_cost.CANDIDATES)
def test_the_oracle_has_the_counts_of_the_plan_at_every_layer(vlm: Vlm, name: str) -> None:
    plan = make_plan(MergeSpec(name, keep_ratio=0.5), vlm.shape)
    job, trace = merge_cost.oracle_of(plan), list[Tokens]()
    pixels = torch.zeros(1, 3, 384, 384)
    with torch.inference_mode():
        encode(vlm.tower, pixels, job.plan, track_source=False, method=job.method, trace=trace)
    assert tuple(tokens.x.shape[1] for tokens in trace) == plan.counts[1:]
    assert job.method is not None and job.method.site == METHODS[name].site


def test_merge_cost(vlm: Vlm) -> None:
    host = adapt(vlm.tower)
    plans = [make_plan(MergeSpec(name, keep_ratio=0.25), host.shape) for name in ("tome", "tosa", "cubist")]
    assert merge_cost.oracle_of(plans[0]) == merge_cost.oracle_of(plans[1])  # timed once for both
    assert merge_cost.oracle_of(plans[0]) != merge_cost.oracle_of(plans[2])
    plain, *rows = merge_cost.measure(host, torch.zeros(1, 3, 384, 384), plans, rounds=1)
    assert plain["method"] == "none" and plain["median_ms"] > 0
    assert [row["method"] for row in rows] == ["tome", "tosa", "cubist"]
    assert all(row["share_of_oracle"] > 0 and row["tokens_out"] == 144 for row in rows)


def test_the_pareto_plot_is_drawn_of_what_was_timed(tmp_path: Path) -> None:
    points = {"none": (9.0, 0.9), "tome 0.25 constant": (5.0, 0.9), "tosa 0.1 decreasing": (4.0, 0.5)}
    rows = [_row(name, ms, right) for name, (ms, right) in points.items()]
    result = {
        "compared": list(points),
        "settings": rows,
        "latency": {"depth_ms": {"true": 1.0}},
        "split": {"questions": 4},
        "pareto": ["tome 0.25 constant"],
    }
    pareto.draw(result, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def _row(name: str, vision_ms: float, right: float) -> dict[str, Any]:
    method, keep, schedule = [*name.split(), "1", "constant"][:3]
    overall = [right, right - 0.01, right + 0.01]
    depth = "true" if method == "tosa" else None
    said = {"name": name, "method": method, "keep_ratio": float(keep), "schedule": schedule, "depth": depth}
    return said | {"vision_ms": vision_ms, "accuracy": {"overall": overall}, "same_as": None}


def test_proportional_attention_timing() -> None:
    assert set(measure_attention((1, 2, 16, 8), torch.device("cpu"))) == {"plain", "mask", "channel"}
