"""Choose tokens that cover the scene: one for each voxel, then the farthest from all chosen, exactly B.

The method of CoVeR (CMU and Meta, 2026), from its description: voxel seeds for 40 % of the budget, then
farthest points. Every place lies within sqrt(3) voxels of a kept token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tosa.frames.placed import first_by_group

SEED_SHARE = 0.4
SMALLEST_M, LARGEST_M = 0.02, 5.0
ROUNDS, NEAR_ENOUGH = 16, 0.05


def cover(points: Tensor, budget: int) -> Tensor:
    """Return the indices of `budget` points [M, 3] that cover all, in ascending order; all if M is less.

    Deterministic: ties go to the lowest index.
    """
    if len(points) <= budget:
        return torch.arange(len(points))
    if budget <= 0:
        return torch.zeros(0, dtype=torch.int64)
    seeds = _seeds(points, budget)
    return torch.sort(farthest(points, seeds, budget)).values


def farthest(points: Tensor, chosen: Tensor, budget: int) -> Tensor:
    """Add to the chosen points the farthest from all that are chosen, again and again, up to `budget`."""
    distance = nearest_squared(points, points[chosen])
    distance[chosen] = -1
    found = [chosen]
    for _ in range(min(budget, len(points)) - len(chosen)):
        at = distance.argmax()
        found.append(at[None])
        distance = torch.minimum(distance, ((points - points[at]) ** 2).sum(dim=1))
        distance[at] = -1  # below 0, which is what another token at the same place has
    return torch.cat(found)


def nearest_squared(points: Tensor, chosen: Tensor, block: int = 512) -> Tensor:
    """Return the squared distance of each point [M, 3] to the nearest of the chosen ones: [M]."""
    distance = points.new_full((len(points),), torch.inf)
    for start in range(0, len(chosen), block):
        part = chosen[start : start + block]
        apart = ((points[:, None] - part[None]) ** 2).sum(dim=2)
        distance = torch.minimum(distance, apart.min(dim=1).values)
    return distance


def voxel_of(points: Tensor, side_m: float) -> Tensor:
    """Number the voxels that hold points [M, 3]: int64 [M], from 0, in the order of their coordinates."""
    cells = torch.floor(points / side_m).to(torch.int64)
    low = cells.min(dim=0).values
    span = cells.max(dim=0).values - low + 1
    x, y, z = (cells - low).unbind(dim=1)
    return torch.unique((x * span[1] + y) * span[2] + z, return_inverse=True)[1]


def _seeds(points: Tensor, budget: int) -> Tensor:
    voxel = _voxels_near(points, max(1, int(SEED_SHARE * budget)))
    count = torch.bincount(voxel)
    centre = torch.zeros(len(count), 3, dtype=points.dtype).index_add_(0, voxel, points) / count[:, None]
    chosen = first_by_group(((points - centre[voxel]) ** 2).sum(dim=1), voxel)
    if len(chosen) > budget:
        chosen = chosen[torch.sort(count, descending=True, stable=True).indices[:budget]]
    return chosen


def _voxels_near(points: Tensor, target: int) -> Tensor:
    """Search a size of voxels that leaves about `target` of them; return the voxel of every point."""
    low, high = SMALLEST_M, LARGEST_M
    best, best_off = voxel_of(points, high), float("inf")
    for _ in range(ROUNDS):
        side = (low + high) / 2
        voxel = voxel_of(points, side)
        count = int(voxel.max()) + 1
        if abs(count - target) < best_off:
            best, best_off = voxel, abs(count - target)
        if best_off <= NEAR_ENOUGH * target:
            break
        low, high = (side, high) if count > target else (low, side)
    return best
