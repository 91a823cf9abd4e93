"""Methods without geometry, which say what geometry adds."""

from __future__ import annotations

import torch
from torch import Tensor


def diverse(features: Tensor, budget: int, block: int = 1024) -> Tensor:
    """Return the indices of `budget` tokens [M, D] that are unlike each other, in ascending order.

    Greedy farthest points by cosine distance, after the token farthest from its nearest other one (DivPrune,
    2025). Ties go to the lowest index.
    """
    if len(features) <= budget:
        return torch.arange(len(features))
    if budget <= 0:
        return torch.zeros(0, dtype=torch.int64)
    unit = torch.nn.functional.normalize(features.float(), dim=1)
    nearest = torch.empty(len(unit))
    for start in range(0, len(unit), block):
        alike = unit[start : start + block] @ unit.T
        rows = torch.arange(len(alike))
        alike[rows, start + rows] = -2
        nearest[start : start + block] = 1 - alike.max(dim=1).values
    chosen = [int(nearest.argmax())]
    distance = 1 - unit @ unit[chosen[0]]
    distance[chosen[0]] = -1
    for _ in range(budget - 1):
        at = int(distance.argmax())
        chosen.append(at)
        distance = torch.minimum(distance, 1 - unit @ unit[at])
        distance[at] = -1
    return torch.tensor(sorted(chosen))


def still(change: Tensor, budget: int) -> Tensor:
    """Return the indices of the `budget` tokens that changed most, in ascending order; the first of equals.

    The rule of EVS, which assumes a camera that stands still. change [M].
    """
    order = torch.sort(change, descending=True, stable=True).indices
    return torch.sort(order[:budget]).values
