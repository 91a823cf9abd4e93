"""Throughput of a model with merging beside the same model without, in rounds side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tosa import MergePlan, MergeSpec, make_plan, spatial_tokens
from vlm.adapters import ViTAdapter, adapt
from vlm.adapters.heads import head_of
from vlm.model import VlmError, synchronize
from vlm.vision import encode


@dataclass(frozen=True)
class Throughput:
    """What one spec reached: images per second, and ratios of time without merging to time with it."""

    spec: MergeSpec
    tokens_out: int  # patch tokens after the last layer
    images_per_s: float  # median of the rounds
    speed_up: float  # median of the ratios of the rounds
    least: float  # smallest and largest of these ratios
    most: float


def benchmark(
    model: Any,
    spec: MergeSpec | Sequence[MergeSpec],
    *,
    batch: int = 8,
    rounds: int = 10,
    image_size: tuple[int, int] | None = None,
) -> tuple[Throughput, ...]:
    """Print the throughput of each spec against method "none", and return it.

    Every round times all of them, one after the other, on the same random images of the model's dtype and
    device; every other round in reverse, after one round to warm up. The head is part of it where the model
    has one. image_size: (height, width) in px; None means the size the model was built for.
    Methods that need spatial tokens get those of random depths. Raises PlanError and VlmError.
    """
    adapter = adapt(model, image_size=image_size)
    specs = [MergeSpec(), *([spec] if isinstance(spec, MergeSpec) else spec)]
    plans = [make_plan(each, adapter.shape) for each in specs]
    pixels = _random_images(model, adapter, image_size, batch)
    finish = _head(model, adapter)
    z = torch.randint(0, adapter.shape.grid[0], (batch, *adapter.shape.grid), device=pixels.device)
    spatial = spatial_tokens(z)
    times: list[list[float]] = [[] for _ in plans]
    with torch.inference_mode():
        for number in range(rounds + 1):
            order = range(len(plans)) if number % 2 else reversed(range(len(plans)))
            for index in order:
                taken = _seconds(adapter, plans[index], pixels, spatial, finish)
                if number:
                    times[index].append(taken)
    rows = tuple(_row(plan, taken, times[0], batch) for plan, taken in zip(plans, times, strict=True))
    print(_table(rows, adapter.shape.name, pixels, rounds))
    return rows


def _random_images(model: Any, adapter: ViTAdapter, image_size: tuple[int, int] | None, batch: int) -> Tensor:
    weight = next(model.parameters())
    size = image_size or _built_size(model, adapter)
    return torch.randn(batch, 3, *size, dtype=weight.dtype, device=weight.device)


def _built_size(model: Any, adapter: ViTAdapter) -> tuple[int, int]:
    """Read the size in px of the grid: a convolution cuts patches, or their size is declared."""
    cutting = (part.kernel_size for part in model.modules() if isinstance(part, torch.nn.Conv2d))
    declared = (part.patch_size for part in model.modules() if hasattr(part, "patch_size"))
    side = next(cutting, None) or next(declared)
    rows, columns = (side, side) if isinstance(side, int) else side
    return adapter.shape.grid[0] * rows, adapter.shape.grid[1] * columns


def _head(model: Any, adapter: ViTAdapter) -> Callable[[Any], Any]:
    try:
        head = head_of(model)
    except VlmError:  # a tower alone
        return lambda tokens: adapter.finish(tokens.x)
    return lambda tokens: head.output(adapter, tokens)


def _seconds(
    adapter: ViTAdapter, plan: MergePlan, pixels: Tensor, spatial: Tensor, finish: Callable[[Any], Any]
) -> float:
    synchronize(pixels.device)
    began = time.perf_counter()
    finish(encode(adapter, pixels, plan, spatial if plan.needs_spatial else None))
    synchronize(pixels.device)
    return time.perf_counter() - began


def _row(plan: MergePlan, taken: list[float], without: list[float], batch: int) -> Throughput:
    ratios = [plain / merged for plain, merged in zip(without, taken, strict=True)]
    return Throughput(
        plan.spec, plan.tokens_out, batch / median(taken), median(ratios), min(ratios), max(ratios)
    )


def _table(rows: Sequence[Throughput], name: str, pixels: Tensor, rounds: int) -> str:
    batch, _, height, width = pixels.shape
    kind = str(pixels.dtype).removeprefix("torch.")
    images = f"{batch} images of {height} x {width} px"
    lines = [
        f"{name}, {images}, {pixels.device}, {kind}, medians of {rounds} rounds",
        f"{'':18}{'tokens out':>10}{'images/s':>10}{'against none (range)':>24}",
    ]
    for row in rows:
        kept = "" if row.spec.keep_ratio is None else f" {row.spec.keep_ratio:g}"
        ratio = f"{row.speed_up:.2f} ({row.least:.2f} to {row.most:.2f})"
        lines.append(f"{row.spec.method + kept:18}{row.tokens_out:10}{row.images_per_s:10.1f}{ratio:>24}")
    return "\n".join(lines)
