"""Merge what is near and alike: mutually best pairs in a cell, in cells that grow.

DTC (Huang et al., CVPR 2025) made deterministic: it divides tokens at random, and here pairs are mutual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.frames.cover import voxel_of

FIRST_M, LARGEST_M, GROWTH = 0.2, 3.2, 1.5
ROUNDS, FEWEST = 32, 0.01
"""Most rounds of merging in cells of one size, and the share that a round must merge to be repeated."""
_SIBLING = 1e-6
"""Of a cosine, by which the neighbour in a cell is preferred: equal tokens would all choose the first."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Say which tokens became one: dest [M] int64, the lowest index of each token's group."""

    dest: Tensor
    features: Tensor  # [M, D] float32; only those of leaders count

    @property
    def leaders(self) -> Tensor:
        """Return the indices of the tokens that are left."""
        return (self.dest == torch.arange(len(self.dest))).nonzero().flatten()


def merge_alike(
    points: Tensor, features: Tensor, size: Tensor, budget: int, tau: float, average: bool
) -> Groups:
    """Merge pairs until `budget` tokens are left, or no pair in a cell of 3.2 m has a cosine of at least tau.

    points [M, 3], features [M, D], size [M]. The lower index of a pair leads, and keeps its place. average:
    it gets the mean weighted by size, else it keeps its features.
    """
    features, size = features.float().clone(), size.clone()
    dest, side = torch.arange(len(points)), FIRST_M
    alive = torch.arange(len(points))
    while len(alive) > budget and side <= LARGEST_M:
        for _ in range(ROUNDS):
            first, second = _pairs(features[alive], voxel_of(points[alive], side), tau)
            most = len(alive) - budget
            first, second = alive[first[:most]], alive[second[:most]]
            if average:
                weight = (size[second] / (size[first] + size[second]))[:, None]
                features[first] += weight * (features[second] - features[first])
            size[first] += size[second]
            dest[second] = first
            alive = alive[dest[alive] == alive]
            if len(alive) <= budget or len(first) <= FEWEST * len(alive):
                break
        side *= GROWTH
    return Groups(_roots(dest), features)


def _pairs(features: Tensor, cell: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return mutually best pairs of one cell with a cosine of at least tau, the most alike first."""
    best, cosine = best_partners(features, cell)
    index = torch.arange(len(cell))
    is_pair = (best >= 0) & (cosine >= tau) & (best[best.clamp(min=0)] == index) & (index < best)
    first = index[is_pair]
    order = torch.sort(cosine[first], descending=True, stable=True).indices
    return first[order], best[first[order]]


def best_partners(features: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most alike other token in the cell of each token, -1 if it is alone, and the cosine: [M].

    Of equals the neighbour in the cell, else the first. Cells of about one size are compared together.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    order = torch.sort(cell, stable=True).indices
    count = torch.bincount(cell)
    start = torch.cumsum(count, 0) - count
    best = torch.full((len(cell),), -1, dtype=torch.int64)
    cosine = torch.full((len(cell),), -2.0)
    width = 2
    while width // 2 < int(count.max()):
        cells = ((count > width // 2) & (count <= width) & (count > 1)).nonzero().flatten()
        for part in cells.split(max(1, 2**22 // width**2)):
            slot = torch.arange(width)
            is_there = slot < count[part][:, None]
            token = order[(start[part][:, None] + slot).clamp(max=len(order) - 1)]
            rows = unit[token]
            alike = rows @ rows.mT
            alike[:, slot, slot ^ 1] += _SIBLING
            alike = alike.masked_fill(~is_there[:, None], -2).masked_fill(torch.eye(width).bool(), -2)
            value, at = alike.max(dim=2)
            best[token[is_there]] = token.gather(1, at)[is_there]
            cosine[token[is_there]] = value[is_there]
        width *= 2
    return best, cosine


def _roots(dest: Tensor) -> Tensor:
    while True:
        further = dest[dest]
        if torch.equal(further, dest):
            return dest
        dest = further
