"""Cells of patches, which merge as one: the two orders of patch tokens, and cells as rows of more channels.

The slots of a cell are its patches, row-major. Prefix tokens are no cells: they keep a row of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.grid import Grid, divide


def cell_major(x: Tensor, grid: Grid, cell: Grid) -> Tensor:
    """Put the slots of each cell side by side, cells row-major: [B, P, C] of a row-major grid -> [B, P, C].

    grid: rows and columns of patches. Raises ValueError unless they are whole cells.
    """
    if cell == (1, 1):
        return x
    rows, columns = divide(grid, cell)
    return x.unflatten(1, (rows, cell[0], columns, cell[1])).transpose(2, 3).flatten(1, 4)


def row_major(x: Tensor, grid: Grid, cell: Grid) -> Tensor:
    """Undo `cell_major`."""
    if cell == (1, 1):
        return x
    rows, columns = divide(grid, cell)
    return x.unflatten(1, (rows, columns, *cell)).transpose(2, 3).flatten(1, 4)


def join_slots(x: Tensor, num_prefix: int, slots: int) -> Tensor:
    """Make one row of each cell: [B, prefix + n * slots, C] -> [B, prefix + n, slots * C].

    A prefix token is filled up with zeros. Without any, and of a contiguous x, this is a view.
    """
    cells = x[:, num_prefix:].unflatten(1, (-1, slots)).flatten(2)
    if num_prefix == 0:
        return cells
    return torch.cat([F.pad(x[:, :num_prefix], (0, (slots - 1) * x.shape[2])), cells], dim=1)


def split_slots(x: Tensor, num_prefix: int, slots: int) -> Tensor:
    """Undo `join_slots`."""
    cells = x[:, num_prefix:].unflatten(2, (slots, -1)).flatten(1, 2)
    if num_prefix == 0:
        return cells
    return torch.cat([x[:, :num_prefix, : cells.shape[2]], cells], dim=1)


def slot_means(values: Tensor, num_prefix: int, slots: int) -> Tensor:
    """Average over the slots of each cell: [B, prefix + n * slots, D] -> [B, prefix + n, D]."""
    means = values[:, num_prefix:].unflatten(1, (-1, slots)).mean(dim=2)
    return means if num_prefix == 0 else torch.cat([values[:, :num_prefix], means], dim=1)


def repeat_slots(values: Tensor, num_prefix: int, slots: int) -> Tensor:
    """Give every slot what its cell has: [B, prefix + n] -> [B, prefix + n * slots]."""
    cells = values[:, num_prefix:].repeat_interleave(slots, dim=1)
    return cells if num_prefix == 0 else torch.cat([values[:, :num_prefix], cells], dim=1)
