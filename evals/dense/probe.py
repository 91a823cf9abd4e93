"""Read the patches of a tower under any merging, and score what its heads say of the patches of things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth import depth_codes, metric_depth
from evals.dense.tower import Tower
from evals.rooms import Frame, make_plain_scene, render
from evals.rooms.conditions import Condition, spoil
from service.roomqa.depth_cameras import measured_depth
from tosa import MergeMethod, MergePlan, position_tokens, recover, spatial_tokens
from training.symbols import FACTS, SHAPE, THING, patch_symbols
from training.tower import normalise
from vlm import encode

DEPTHS = ("true", "sensed", "stereo", "shuffled", "x and y")
"""Where spatial tokens come from; "shuffled" is the exact depth of the next scene, the control."""
CAMERA_OF = {"true": "exact", "shuffled": "exact", "sensed": "active", "stereo": "stereo"}
DISTANCE = FACTS.start + 2
TOGETHER = 10  # scenes in a batch


@dataclass(frozen=True)
class Probed:
    """Plain scenes under one condition, of any number: frames as seen, and what is true of each patch.

    symbols [B, P, WIDTH], see `training.symbols`.
    """

    seeds: tuple[int, ...]
    frames: tuple[Frame, ...]
    symbols: Tensor

    @property
    def pixels(self) -> Tensor:
        """Give the pictures [B, 3, S, S], normalised for the tower."""
        rgb = np.stack([frame.rgb for frame in self.frames])
        return normalise(torch.from_numpy(rgb).permute(0, 3, 1, 2))


@dataclass(frozen=True)
class Scores:
    """For each scene, one value for each patch of a thing.

    shape: 1 where the shape is right; distance: error of the logarithm of the thing's distance.
    """

    shape: list[list[float]]
    distance: list[list[float]]


def scenes(seeds: Sequence[int], grid: int) -> Probed:
    """Render plain scenes, the only ones that the dense heads know; those without a thing are left out."""
    made = [(seed, make_plain_scene(seed)) for seed in seeds]
    made = [(seed, scene) for seed, scene in made if scene.things]
    frames = tuple(render(scene) for _, scene in made)
    symbols = [patch_symbols(scene, frame, grid) for (_, scene), frame in zip(made, frames, strict=True)]
    return Probed(tuple(seed for seed, _ in made), frames, torch.from_numpy(np.stack(symbols)))


def under(probed: Probed, condition: Condition | None) -> Probed:
    """Spoil the pictures; what is true of them stays."""
    if condition is None:
        return probed
    frames = [
        replace(frame, rgb=spoil(frame.rgb, condition, seed, frame.depth))
        for seed, frame in zip(probed.seeds, probed.frames, strict=True)
    ]
    return replace(probed, frames=tuple(frames))


def depth_maps(probed: Probed, source: str) -> list[NDArray[np.float32]]:
    """Measure depth [H, W] in metres from a source, one of DEPTHS without "x and y"."""
    frames = probed.frames
    found = [
        measured_depth(CAMERA_OF[source], frame.depth, frame.rgb, seed)
        for seed, frame in zip(probed.seeds, frames, strict=True)
    ]
    found = [each if each.any() else np.ones_like(each) for each in found]  # nothing matched: a flat wall
    return [*found[1:], found[0]] if source == "shuffled" else found


def spatial_of(probed: Probed, source: str, grid: tuple[int, int], kernel: str = "sinusoidal") -> Tensor:
    """Return spatial tokens [B, P, S] from a source."""
    if source == "x and y":
        return position_tokens(grid, len(probed.frames), kernel=kernel)
    codes = [depth_codes(metric_depth(depth), grid, levels=grid[0]) for depth in depth_maps(probed, source)]
    return spatial_tokens(torch.stack(codes), kernel=kernel, levels=grid[0])


@torch.inference_mode()
def probe(
    tower: Tower,
    probed: Probed,
    plan: MergePlan,
    spatial: Tensor | None = None,
    method: MergeMethod | None = None,
) -> Scores:
    """Merge as planned, give every patch its token's features, and score the heads on patches of things.

    spatial [B, P, S], for methods that need it; method: one that is not in METHODS.
    """
    shape, distance = list[list[float]](), list[list[float]]()
    pixels = probed.pixels
    for first in range(0, len(pixels), TOGETHER):
        part = slice(first, first + TOGETHER)
        tokens = encode(
            tower.adapter, pixels[part], plan, None if spatial is None else spatial[part], method=method
        )
        said = tower.heads(recover(tokens))
        for mine, true in zip(said, probed.symbols[part], strict=True):
            thing = true[:, THING.start] > 0
            mine, true = mine[thing], true[thing]
            right = mine[:, SHAPE].argmax(-1) == true[:, SHAPE].argmax(-1)
            shape.append(right.float().tolist())
            distance.append((mine[:, DISTANCE] - true[:, DISTANCE]).abs().tolist())
    return Scores(shape, distance)
