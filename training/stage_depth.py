"""Train room-depth-tiny on RoomQA frames and their exact depth: first at 126 px, then at the full 252 px.

Training starts in plain rooms; a second run continues in furnished ones from that checkpoint:
python -m training.stage_depth --out runs/depth --low-steps 1700 --steps 2200
python -m training.stage_depth --furnished --start runs/plain-depth --out runs/depth-furnished --low-steps 0
    --steps 500
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import DepthAnythingForDepthEstimation

from evals.depth_estimation import evaluate
from evals.rooms import TRAIN, VALIDATION, make_plain_scene, make_scene, render
from training.depth_model import IMAGE_PX, build_model, build_processor, depth_loss
from training.loop import Plan, arguments, train

LOW_PX = 126
VALIDATE_EVERY, VALIDATION_FRAMES = 100, 50


@dataclass(frozen=True)
class Recipe:
    """The recipe of a batch: `scenes` frames of `size` pixels, scene seeds counted from `first_seed`."""

    size: int
    first_seed: int
    scenes: int = 16
    plain: bool = True


HIGH = Recipe(IMAGE_PX, first_seed=TRAIN.start + 6_000_000)
LOW = replace(HIGH, size=LOW_PX, first_seed=TRAIN.start + 5_000_000)


@dataclass(frozen=True)
class DepthBatch:
    """pixels [B, 3, S, S] in -1..1, and inverse depth [B, S, S] in 1/m."""

    pixels: Tensor
    inverse_m: Tensor


class DepthBatches(Dataset[DepthBatch]):
    """Batches by step number."""

    def __init__(self, recipe: Recipe, steps: range) -> None:
        self.recipe, self.steps = recipe, steps
        self.processor = build_processor(recipe.size)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> DepthBatch:
        first = self.recipe.first_seed + self.steps[index] * self.recipe.scenes
        make = make_plain_scene if self.recipe.plain else make_scene
        scenes = [make(seed) for seed in range(first, first + self.recipe.scenes)]
        # Pixels as the estimator will get them, from a larger image; depth exactly at their centres.
        seen = self.processor(images=[render(scene).rgb for scene in scenes], return_tensors="pt")
        depth = np.stack([render(scene, self.recipe.size).depth for scene in scenes])
        generator = torch.Generator().manual_seed(first)
        pixels, inverse = flip(seen["pixel_values"], 1 / torch.from_numpy(depth), generator)
        return DepthBatch(jitter(pixels, generator), inverse)


def flip(pixels: Tensor, inverse: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror every other frame, left to right, pixels [B, 3, S, S] and inverse depth [B, S, S] together."""
    turned = torch.rand(len(pixels), 1, 1, generator=generator) < 0.5
    return torch.where(turned[:, None], pixels.flip(-1), pixels), torch.where(
        turned, inverse.flip(-1), inverse
    )


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change exposure, contrast and white balance a little, and add the noise of a sensor; stays in -1..1."""

    def spread(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(pixels), *shape, generator=generator)

    bright = (pixels + 1) / 2
    bright = bright ** spread(0.8, 1.25, 1, 1, 1) * spread(0.85, 1.15, 1, 1, 1) * spread(0.94, 1.06, 3, 1, 1)
    noise = torch.randn(pixels.shape, generator=generator) * spread(0, 0.02, 1, 1, 1)
    return (bright + noise).clamp(0, 1) * 2 - 1


def batches(steps: range, low_steps: int, workers: int, plain: bool = True) -> Iterator[DepthBatch]:
    """Batches at the low resolution before step `low_steps` and at the full one from it on."""
    low, high = (
        range(steps.start, min(steps.stop, low_steps)),
        range(max(steps.start, low_steps), steps.stop),
    )
    for recipe, wanted in ((LOW, low), (HIGH, high)):
        data = DepthBatches(replace(recipe, plain=plain), wanted)
        yield from DataLoader(
            data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )


def validate(model: DepthAnythingForDepthEstimation, size: int, plain: bool) -> dict[str, float]:
    """Score the current model on frames outside its training set."""
    processor = build_processor(size)

    def look(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = processor(images=rgb, return_tensors="pt")["pixel_values"].to(model.device)
        with torch.inference_mode():
            return model(pixels).predicted_depth[0].cpu().numpy()

    return evaluate(look, VALIDATION[:VALIDATION_FRAMES], make_plain_scene if plain else make_scene)


def main() -> None:
    args = arguments(__doc__, "runs/depth", steps=2200, rate=1e-3, seed=4)
    args.add_argument("--low-steps", type=int, default=1700, help="steps at the low resolution")
    args.add_argument("--furnished", action="store_true", help="learn furnished rooms, not plain ones")
    args.add_argument("--start", type=Path, help="checkpoint to begin with, in Hugging Face format")
    given = args.parse_args()
    torch.set_num_threads(given.threads)
    plain = not given.furnished
    model = build_model(given.seed).to(given.device)
    if given.start:
        start = DepthAnythingForDepthEstimation.from_pretrained(given.start, dtype=torch.float32)
        model.load_state_dict(start.state_dict())

    def step_loss(batch: DepthBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        if step and step % VALIDATE_EVERY == 0:
            measured = validate(model, batch.pixels.shape[-1], plain)
            with (given.out / "validation.jsonl").open("a") as log:
                log.write(json.dumps({"step": step} | measured) + "\n")
        pixels = batch.pixels.to(given.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            predicted = model(pixels).predicted_depth
        return depth_loss(predicted.float(), batch.inverse_m.to(given.device))

    plan = Plan(given.out, given.steps, given.rate, given.until, warmup=200, decay_share=0.25, save_every=100)
    train(
        plan,
        nn.ModuleDict({"model": model}),
        lambda steps: batches(steps, given.low_steps, given.workers, plain),
        step_loss,
    )


if __name__ == "__main__":
    main()
