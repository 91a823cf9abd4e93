"""Score a depth estimator on RoomQA frames against their exact depth: AbsRel and delta1, affine-aligned.

python -m evals.depth_estimation --out bench/results/depth_estimation.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from depth.estimate import DepthEstimator, estimate
from depth.estimators import load_depth_estimator
from evals.machine import write_result
from evals.rooms import TEST, TRAIN, VALIDATION, Frame, Scene, make_plain_scene, make_scene, render

Map = NDArray[np.floating]
FARTHEST_M = 10.0  # metres; caps depth where an aligned inverse map reaches zero
SPLITS = {"test": TEST, "validation": VALIDATION}
WORLDS: dict[str, Callable[[int], Scene]] = {"furnished": make_scene, "plain": make_plain_scene}


@dataclass(frozen=True)
class Score:
    """Errors of metric depth over the chosen pixels: mean |z' - z| / z, and the share within 25 %."""

    abs_rel: float
    delta1: float


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--model", default="room-depth-tiny")
    args.add_argument("--split", choices=SPLITS, default="test")
    args.add_argument("--world", choices=WORLDS, default="furnished", help="which rooms")
    args.add_argument("--frames", type=int, default=200)
    args.add_argument("--threads", type=int, default=torch.get_num_threads())
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    torch.set_num_threads(given.threads)

    loaded = load_depth_estimator(given.model)
    seeds = SPLITS[given.split][: given.frames]
    make = WORLDS[given.world]
    blind = mean_map(TRAIN[:200], make)
    result = {
        "model": {"id": given.model, "revision": loaded.revision, "size_px": loaded.size_px},
        "split": {"name": given.split, "world": given.world, "frames": len(seeds), "first_seed": seeds.start},
        "estimated": evaluate(inverse_of(loaded), seeds, make),
        "blind_guess": evaluate(lambda rgb: blind, seeds, make),
    }
    print(json.dumps(result, indent=1))
    if given.out:
        write_result(given.out, result)


def inverse_of(estimator: DepthEstimator) -> Callable[[NDArray[np.uint8]], Map]:
    """Return a function from rgb [H, W, 3] to inverse depth [h, w] for an estimator of either kind."""

    def look(rgb: NDArray[np.uint8]) -> Map:
        (depth,) = estimate(estimator, [Image.fromarray(rgb)])
        if depth.kind == "inverse":
            return depth.values
        return 1 / np.where(depth.valid, depth.values, np.float32(np.inf))

    return look


def evaluate(
    look: Callable[[NDArray[np.uint8]], Map], seeds: Iterable[int], make: Callable[[int], Scene] = make_scene
) -> dict[str, float]:
    """Score inverse depth maps of any resolution on frames of 384 px.

    Means over frames, the worst frame, and the pixels of things alone (each frame is aligned as a whole).
    """
    whole: list[Score] = []
    things: list[Score] = []
    for seed in tqdm(seeds, desc="frames", leave=False):
        frame: Frame = render(make(seed))
        depth = aligned_depth(_resized(look(frame.rgb), frame.depth.shape), frame.depth)
        whole.append(score(depth, frame.depth))
        if (frame.ids >= 0).any():
            things.append(score(depth[frame.ids >= 0], frame.depth[frame.ids >= 0]))
    return {
        "abs_rel": round(statistics.fmean(frame.abs_rel for frame in whole), 4),
        "delta1": round(statistics.fmean(frame.delta1 for frame in whole), 4),
        "worst_abs_rel": round(max(frame.abs_rel for frame in whole), 4),
        "things_abs_rel": round(statistics.fmean(frame.abs_rel for frame in things), 4),
        "things_delta1": round(statistics.fmean(frame.delta1 for frame in things), 4),
    }


def aligned_depth(inverse: Map, true_m: Map) -> Map:
    """Metres from a relative map: the least-squares scale and shift to true inverse depth, then 1 / it.

    The scale is never negative: a map with near and far swapped scores no better than a flat one.
    """
    x, wanted = inverse.astype(np.float64), 1 / true_m.astype(np.float64)
    spread = x.var()
    scale = max(0.0, ((x - x.mean()) * (wanted - wanted.mean())).mean() / spread) if spread > 0 else 0.0
    fitted = wanted.mean() + scale * (x - x.mean())
    return 1 / np.maximum(fitted, 1 / FARTHEST_M)


def score(depth_m: Map, true_m: Map) -> Score:
    """Compare depth with the truth, both in metres."""
    ratio = np.maximum(depth_m / true_m, true_m / depth_m)
    return Score(float(np.mean(np.abs(depth_m - true_m) / true_m)), float(np.mean(ratio < 1.25)))


def _resized(inverse: Map, shape: tuple[int, ...]) -> Map:
    image = Image.fromarray(inverse.astype(np.float32))
    return np.array(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def mean_map(seeds: Iterable[int], make: Callable[[int], Scene] = make_scene) -> Map:
    """Mean inverse depth over frames: the best guess about any frame of this camera without seeing it."""
    return np.mean([1 / render(make(seed)).depth for seed in seeds], axis=0)


if __name__ == "__main__":
    main()
