"""Sources of spatial tokens: exact, estimated, sensed, stereo or shuffled depth, or positions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from PIL import Image
from torch import Tensor

from depth import DepthMap, metric_depth
from depth.estimate import estimate
from depth.estimators import load_depth_estimator
from evals.inputs import spatial_of
from evals.rooms.splits import Example
from service.roomqa.depth_cameras import sensed_depth, stereo_depth
from tosa import position_tokens
from vlm import Vlm

DepthOf = Callable[[Example], DepthMap]
DEPTHS = ("true", "estimated", "sensed", "stereo", "shuffled", "x and y")


def spatial_from(
    vlm: Vlm, depth: str, kernel: str, split: Sequence[Example], estimator: str
) -> Callable[[Example], Tensor]:
    """Return a function from a frame of `split` to spatial tokens [1, P, S] by a source, one of DEPTHS.

    estimator: the model that "estimated" loads.
    """
    if depth == "x and y":
        flat = position_tokens(vlm.shape.grid, kernel=kernel).to(vlm.device)
        return lambda example: flat
    if depth == "shuffled":
        depth_of = shuffled_depth(split)
    elif depth == "estimated":
        depth_of = estimated_depth(estimator)
    else:
        depth_of = {"true": true_depth, "sensed": sensor_depth, "stereo": stereo_of_picture}[depth]
    return lambda example: spatial_of(vlm, depth_of(example), kernel)


def true_depth(example: Example) -> DepthMap:
    """Take the exact depth of the frame."""
    return metric_depth(example.frame.depth)


def sensor_depth(example: Example) -> DepthMap:
    """Simulate what an active depth camera would measure, in any light."""
    return metric_depth(sensed_depth(example.frame.depth, example.scene.seed))


def stereo_of_picture(example: Example) -> DepthMap:
    """Simulate what a stereo pair would measure from the picture as it is, spoiled or not.

    Where nothing can be matched, all is one flat surface a metre away.
    """
    measured = stereo_depth(example.frame.depth, example.frame.rgb, example.scene.seed)
    return metric_depth(measured if measured.any() else np.ones_like(measured))


def shuffled_depth(split: Sequence[Example]) -> DepthOf:
    """Take the depth of another frame: the control, which must not help."""
    after = {one.scene.seed: other for one, other in zip(split, [*split[1:], split[0]], strict=True)}
    return lambda example: true_depth(after[example.scene.seed])


def estimated_depth(estimator: str) -> DepthOf:
    """Estimate depth from the image alone."""
    loaded = _loaded(estimator)
    return lambda example: estimate(loaded, [Image.fromarray(example.frame.rgb)])[0]


_loaded = cache(load_depth_estimator)
