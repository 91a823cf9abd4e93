"""Poses as odometry reports them: the error of the position grows along the walk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def drifted(poses: Sequence[NDArray[np.float64]], drift_m: float, seed: int) -> list[NDArray[np.float64]]:
    """Move poses [4, 4] along the floor by a random walk from 0; its end is `drift_m` away on average.

    On average: in the root mean square. Directions of view stay exact.
    """
    steps = max(1, len(poses) - 1)
    rng = np.random.default_rng((seed, 7))
    walked = rng.normal(0, 1 / np.sqrt(2 * steps), (steps, 2)).cumsum(axis=0) * drift_m
    moved = [pose.copy() for pose in poses]
    for pose, (x, z) in zip(moved[1:], walked, strict=False):
        pose[0, 3] += x
        pose[2, 3] += z
    return moved
