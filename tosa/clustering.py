"""Soft clustering of features on a grid around a coarser grid of centroids (Expedite, arXiv 2210.01035).

Works on plain tensors of float32 or float64, with windows of one size at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.grid import Grid

_REFERENCE_WIDTH = 1280  # channels of the encoder whose distances the paper's temperature was set for (SAM-H)
_NOTHING = 1e-30  # weight below which a centroid keeps its previous value


@dataclass(frozen=True)
class Clusters:
    """W windows of P places and M centroids. A centroid is the mean of all places under its shares."""

    share: Tensor  # [W, M, P] in the dtype of x, every row sums to 1
    logits: Tensor  # [W, P, M] in the dtype of x, minus scaled squared distance, up to a constant per place
    nearest: Tensor  # [W, P] int64, the nearest centroid of the neighbourhood


def cluster(
    x: Tensor, size: Tensor, grid: Grid, kept: Grid, iterations: int, temperature: float, neighbourhood: int
) -> Clusters:
    """Cluster x [W, P, C] of the grid (h, w) around kept = (h', w') centroids.

    Centroids begin as adaptive average pooling. In every iteration each place spreads itself by softmax of
    -temperature * |x - centroid|^2 * 1280 / C over the centroids within a neighbourhood (odd number of rows
    and columns) of its own, and centroids become the means of what they got, weighted by size [W, P] too.
    """
    centred = x - x.mean(dim=1, keepdim=True)  # distances stay, large common channels no longer cost digits
    allowed = _allowed(grid, kept, neighbourhood, x.device)
    scale = temperature * _REFERENCE_WIDTH / x.shape[-1]
    share = _pooling(grid, kept, x.device).to(x.dtype).expand(x.shape[0], -1, -1)
    for _ in range(iterations):
        logits = _logits(centred, share @ centred, scale)
        affinity = logits.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
        weight = affinity.mT * size[:, None]
        total = weight.sum(dim=-1, keepdim=True)
        share = torch.where(total > _NOTHING, weight / total.clamp(min=_NOTHING), share)
    logits = _logits(centred, share @ centred, scale)
    return Clusters(share, logits, logits.masked_fill(~allowed, -torch.inf).argmax(dim=-1))


def _logits(x: Tensor, centroids: Tensor, scale: float) -> Tensor:
    # |x|^2 is the same for every centroid, so it cancels in the softmax.
    square = centroids.square().sum(dim=-1)[:, None]
    return torch.baddbmm(square, x, centroids.mT, beta=-scale, alpha=2 * scale)


def _pooling(grid: Grid, kept: Grid, device: torch.device) -> Tensor:
    """Return adaptive average pooling as shares [M, P]."""
    rows, columns = (_axis_pooling(n, m, device) for n, m in zip(grid, kept, strict=True))
    return _on_both_axes(rows, columns, rows[:, None, :, None] * columns[None, :, None, :])


def _axis_pooling(length: int, kept: int, device: torch.device) -> Tensor:
    place, piece = torch.arange(length, device=device), torch.arange(kept, device=device)[:, None]
    first, end = piece * length // kept, ((piece + 1) * length + kept - 1) // kept
    inside = ((place >= first) & (place < end)).float()
    return inside / inside.sum(dim=1, keepdim=True)


def _allowed(grid: Grid, kept: Grid, neighbourhood: int, device: torch.device) -> Tensor:
    """Return which centroids each place may choose: bool [P, M]."""
    rows, columns = (_axis_allowed(n, m, neighbourhood, device) for n, m in zip(grid, kept, strict=True))
    return _on_both_axes(rows, columns, rows[:, None, :, None] & columns[None, :, None, :])


def _axis_allowed(length: int, kept: int, neighbourhood: int, device: torch.device) -> Tensor:
    home = torch.arange(length, device=device) * kept // length
    return (home[:, None] - torch.arange(kept, device=device)).abs() <= neighbourhood // 2


def _on_both_axes(rows: Tensor, columns: Tensor, both: Tensor) -> Tensor:
    return both.reshape(len(rows) * len(columns), -1)
