"""Time every method against the unmerged encoder and an oracle that merges at no cost, on random weights.

The oracle keeps the first tokens, as many as the method would, at the same layers and without comparing them:
the gap between a method and its oracle is the cost of matching and merging.

python -m bench.merge_cost --shape siglip-so400m --batch 1 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm
from transformers import SiglipVisionConfig, SiglipVisionModel

from evals.machine import describe_machine, write_result
from tosa import METHODS, MergeMethod, MergePlan, MergeSpec, MergeStep, Tokens, make_plan, spatial_tokens
from vlm import ViTAdapter, adapt, encode, synchronize

RESULT = Path(__file__).parent / "results" / "merge_cost.json"
KEEP_RATIOS = (0.5, 0.25, 0.1)
CANDIDATES = [name for name, method in METHODS.items() if method.merges]


def siglip_so400m() -> tuple[nn.Module, int]:
    """Build SigLIP-SO400M/14 at 384 px: 27x27 tokens, 1152 wide, 27 layers."""
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    return SiglipVisionModel(config), 384


def vit_b(image_size: int) -> tuple[nn.Module, int]:
    """Build ViT-B/16 with a class token."""
    return VisionTransformer(img_size=image_size, num_classes=0, weight_init="skip"), image_size


SHAPES: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "siglip-so400m": siglip_so400m,
    "vit-b-224": lambda: vit_b(224),
    "vit-b-384": lambda: vit_b(384),
}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--shape", nargs="*", choices=tuple(SHAPES), default=list(SHAPES))
    args.add_argument("--batch", nargs="*", type=int, default=[1, 8])
    args.add_argument("--methods", nargs="*", choices=CANDIDATES, default=CANDIDATES)
    args.add_argument("--keep-ratio", nargs="*", type=float, default=list(KEEP_RATIOS))
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--add", action="store_true", help="keep results of other shapes and batches in --out")
    args.add_argument("--device", default="cpu")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    result: dict[str, Any] = {"device": given.device, "dtype": "bfloat16", "runs": []}
    if given.add and given.out.exists():
        result["runs"] = json.loads(given.out.read_text())["runs"]
    for shape in given.shape:
        adapter, size_px = random_encoder(shape, given.device)
        for batch in given.batch:
            pixels = torch.randn(batch, 3, size_px, size_px, device=given.device, dtype=torch.bfloat16)
            specs = [MergeSpec(m, keep_ratio=keep) for m in given.methods for keep in given.keep_ratio]
            plans = [make_plan(spec, adapter.shape) for spec in specs]
            part = {"shape": shape, "batch": batch}
            stamp = {"rounds": given.rounds, "commit": describe_machine()["commit"]}
            runs = [{**part, **stamp, **run} for run in measure(adapter, pixels, plans, given.rounds)]
            result["runs"] = [run for run in result["runs"] if not part.items() <= run.items()] + runs
            write_result(given.out, result)  # after each part: a run takes long
            print(*map(json.dumps, runs), sep="\n")


def random_encoder(shape: str, device: str) -> tuple[ViTAdapter, int]:
    """Build an encoder with random bfloat16 weights; every layer has its own, as a real one has."""
    with torch.device("meta"):
        model, size_px = SHAPES[shape]()
    model = model.to(torch.bfloat16).to_empty(device=device).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    for name, buffer in model.named_buffers():
        assert name.endswith("position_ids")
        buffer.copy_(torch.arange(buffer.numel(), device=device).view_as(buffer))
    return adapt(model), size_px


@dataclass(frozen=True)
class Job:
    """A plan to time; `method` stands in for the plan's own, for the oracle."""

    plan: MergePlan
    method: MergeMethod | None = None


@torch.inference_mode()
def measure(
    adapter: ViTAdapter, pixels: Tensor, plans: Sequence[MergePlan], rounds: int
) -> list[dict[str, Any]]:
    """Time all jobs `rounds` times, interleaved, after a warm-up; plans of equal counts share an oracle."""
    z = torch.randint(0, adapter.shape.grid[0], (len(pixels), *adapter.shape.grid), device=pixels.device)
    spatial = spatial_tokens(z)
    plain = Job(make_plan(MergeSpec(), adapter.shape))
    jobs = [plain, *(job for plan in plans for job in (Job(plan), oracle_of(plan)))]
    times: dict[Job, list[float]] = {job: [] for job in jobs}
    for number in tqdm(range(rounds + 1), desc=f"{adapter.shape.name}, batch {len(pixels)}"):
        # Every other round in reverse, so that no job always follows the same one.
        for job in list(times) if number % 2 else reversed(times):
            taken = _milliseconds(adapter, pixels, job, spatial)
            if number:  # the first round warms up
                times[job].append(taken)
    rows = [_row(plan, times[Job(plan)], times[oracle_of(plan)], times[plain]) for plan in plans]
    return [{"method": "none", "keep_ratio": 1.0, "median_ms": _median(times[plain])}, *rows]


def _milliseconds(adapter: ViTAdapter, pixels: Tensor, job: Job, spatial: Tensor) -> float:
    used = spatial if job.plan.needs_spatial else None
    began = time.perf_counter()
    encode(adapter, pixels, job.plan, used, track_source=False, method=job.method)
    synchronize(pixels.device)
    return (time.perf_counter() - began) * 1000


def _row(plan: MergePlan, taken: list[float], free: list[float], plain: list[float]) -> dict[str, Any]:
    shares = [oracle / real for real, oracle in zip(taken, free, strict=True)]
    return {
        "method": plan.method,
        "keep_ratio": plan.spec.keep_ratio,
        "tokens_out": plan.tokens_out,
        "flops_ratio": round(plan.flops_ratio, 3),
        "median_ms": _median(taken),
        "oracle_ms": _median(free),
        "speed_up": round(statistics.median(plain) / statistics.median(taken), 3),
        "share_of_oracle": round(statistics.median(shares), 3),
        "share_range": [round(min(shares), 3), round(max(shares), 3)],
    }


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


# The oracle.


def keep_first(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Keep the first tokens."""
    n = tokens.x.shape[1] - step.r
    return replace(
        tokens, x=tokens.x[:, :n].contiguous(), size=tokens.size[:, :n], spatial=None, grid=None, window=None
    )


ORACLES = {
    site: MergeMethod(f"oracle {site}", "Merging for free", None, site, keep_first)
    for site in ("before_mlp", "before_block")
}


def oracle_of(plan: MergePlan) -> Job:
    """Keep the same counts at the same place, without proportional attention."""
    steps = tuple(
        MergeStep(layer, r=before - after) if after < before else None
        for layer, (before, after) in enumerate(pairwise(plan.counts))
    )
    method = ORACLES[METHODS[plan.method].site]
    free = make_plan(MergeSpec(), plan.shape)
    return Job(replace(free, steps=steps, counts=plan.counts, order="merge"), method)


if __name__ == "__main__":
    main()
