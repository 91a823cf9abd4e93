"""Time the vision encoder under every method, interleaved; write bench/results/vision_latency.json.

python -m bench.vision_latency --model room-tiny --keep-ratio 0.25
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from evals.inputs import frame_inputs
from evals.machine import write_result
from evals.rooms import TEST, make_scene, render
from tosa import METHODS, MergePlan, MergeSpec, make_plan
from vlm import Vlm, encode, load_vlm, synchronize

RESULT = Path(__file__).parent / "results" / "vision_latency.json"
WARM_UP = 5


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--model", default="room-tiny")
    args.add_argument("--keep-ratio", type=float, default=0.25)
    args.add_argument("--rounds", type=int, default=20)
    args.add_argument("--device", default="cpu")
    args.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()

    vlm = load_vlm(given.model, given.device, getattr(torch, given.dtype))
    specs = [
        MergeSpec(method=name, keep_ratio=given.keep_ratio if method.merges else None)
        for name, method in METHODS.items()
    ]
    result = {
        "model": {"id": given.model, "revision": vlm.revision},
        "rounds": given.rounds,
        "batch": 1,
        "device": given.device,
        "dtype": given.dtype,
        "runs": measure(vlm, [make_plan(spec, vlm.shape) for spec in specs], given.rounds),
    }
    write_result(given.out, result)
    for run in result["runs"]:
        print(json.dumps(run))


@torch.inference_mode()
def measure(vlm: Vlm, plans: list[MergePlan], rounds: int) -> list[dict[str, Any]]:
    """Encode one test frame under each plan, interleaved; return medians, and ratios to the first."""
    frame = render(make_scene(TEST.start))
    pixels, spatial = frame_inputs(vlm, frame.rgb, frame.depth)
    times: list[list[float]] = [[] for _ in plans]
    for number in range(WARM_UP + rounds):
        for index, plan in enumerate(plans):
            began = time.perf_counter()
            encode(vlm.tower, pixels, plan, spatial)
            synchronize(vlm.device)
            if number >= WARM_UP:
                times[index].append((time.perf_counter() - began) * 1000)
    base = statistics.median(times[0])
    return [
        {
            "method": plan.method,
            "keep_ratio": plan.spec.keep_ratio or 1.0,
            "tokens_out": plan.tokens_out,
            "median_ms": round(statistics.median(values), 2),
            "fastest_ms": round(min(values), 2),
            "slowest_ms": round(max(values), 2),
            "time_ratio": round(statistics.median(values) / base, 3),
            "flops_ratio": round(plan.flops_ratio, 3),
        }
        for plan, values in zip(plans, times, strict=True)
    ]


if __name__ == "__main__":
    main()
