"""The benchmarks and the evaluation run, on a few frames: their numbers have the right form."""

from __future__ import annotations

import pytest
import torch

from bench.prop_attn import measure as measure_attention
from bench.vision_latency import measure
from evals.rooms import VALIDATION, examples
from evals.rooms.run import run
from tosa import MergeSpec, make_plan
from vlm import Vlm, load_vlm


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_vlm("room-tiny")


def test_vision_latency(vlm: Vlm) -> None:
    specs = (MergeSpec(), MergeSpec(method="tosa", keep_ratio=0.25))
    runs = measure(vlm, [make_plan(spec, vlm.shape) for spec in specs], rounds=1)
    assert [run["method"] for run in runs] == ["none", "tosa"]
    assert runs[0]["time_ratio"] == 1 and runs[1]["tokens_out"] == 144
    assert 0 < runs[1]["flops_ratio"] < 1 and runs[1]["median_ms"] > 0


def test_rooms_evaluation(vlm: Vlm) -> None:
    plans = [make_plan(MergeSpec(method="tome", keep_ratio=0.5), vlm.shape)]
    (result,) = run(vlm, list(examples(VALIDATION, 8)), plans)
    assert result["tokens_out"] == 288 and 0 <= result["accuracy"]["overall"] <= 1


def test_proportional_attention_timing() -> None:
    assert set(measure_attention((1, 2, 16, 8), torch.device("cpu"))) == {"plain", "mask", "channel"}
