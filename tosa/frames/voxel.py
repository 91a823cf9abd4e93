"""Average all tokens of a voxel (VTC, LLaVA-3D): the textbook baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from tosa.frames.cover import LARGEST_M, SMALLEST_M, farthest, voxel_of
from tosa.frames.placed import first_by_group

ROUNDS = 20


def voxel_groups(points: Tensor, budget: int) -> Tensor:
    """Return the group of each point [M, 3], int64 [M] from 0: `budget` groups, or M if that is less.

    The groups are voxels of the smallest size that leaves at most `budget`; what is left of the budget goes
    to the points farthest from the middle of every voxel, which become groups of their own.
    """
    if len(points) <= budget:
        return torch.arange(len(points))
    voxel = _voxels_below(points, budget)
    count = torch.bincount(voxel)
    centre = torch.zeros(len(count), 3, dtype=points.dtype).index_add_(0, voxel, points) / count[:, None]
    nearest = first_by_group(((points - centre[voxel]) ** 2).sum(dim=1), voxel)
    alone = farthest(points, nearest, budget)[len(nearest) :]
    group = voxel.clone()
    group[alone] = len(count) + torch.arange(len(alone))
    return group


def grouped_means(features: Tensor, size: Tensor, group: Tensor) -> Tensor:
    """Return the mean of each group weighted by size: float32 [groups, D]."""
    number = int(group.max()) + 1
    total = torch.zeros(number, features.shape[1]).index_add_(0, group, features.float() * size[:, None])
    return total / torch.zeros(number).index_add_(0, group, size)[:, None]


def _voxels_below(points: Tensor, most: int) -> Tensor:
    low, high = SMALLEST_M, LARGEST_M
    while int(voxel_of(points, high).max()) + 1 > most:
        low, high = high, 2 * high
    best = voxel_of(points, high)
    for _ in range(ROUNDS):
        side = (low + high) / 2
        voxel = voxel_of(points, side)
        if int(voxel.max()) + 1 <= most:
            best, high = voxel, side
        else:
            low = side
    return best
