"""Axial rotary tables of transformers for cells: a survivor keeps its place, a smaller grid is laid out.

A table row holds the cosines and sines that rotate queries and keys at one patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tosa import Tokens
from tosa.grid import Grid
from tosa.windows import window_order

# Cosines and sines in float32: each [rows, D] or, with places per image, [B, 1, rows, D].
Table = tuple[Tensor, Tensor]
Order = tuple[Tensor, Tensor]  # int64 [rows] each


@dataclass(frozen=True)
class Places:
    """Look up rotary tables; `module` is the model's own, `cells` the grid of cells at entry.

    While tokens lie on a grid, places are laid out over it so that they span what the entry grid spans;
    otherwise each cell stands where the cell stood whose place it keeps.
    """

    module: Any
    cells: Grid
    cell: Grid
    # Of this adapter only.
    _tables: dict[Grid, Table] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[tuple[Grid, Grid], Order] = field(default_factory=dict, repr=False, compare=False)

    def table(self, tokens: Tokens) -> Table:
        """Return a row for every row of x there is now."""
        if tokens.grid is not None:
            return self._on(tokens.grid)
        assert tokens.position is not None, "a rotary adapter needs tokens that keep their position"
        cosines, sines = (rows.unflatten(0, (-1, tokens.slots)) for rows in self._on(self.cells))
        position = tokens.position
        return cosines[position].flatten(1, 2)[:, None], sines[position].flatten(1, 2)[:, None]

    def order(self, tokens: Tokens) -> Order:
        """Return the rows of x window after window, and the way back."""
        assert tokens.grid is not None and tokens.window is not None
        key = tokens.grid, tokens.window
        if torch.compiler.is_compiling():
            return self._ordered(*key)
        if key not in self._orders:
            with torch.inference_mode(False):
                self._orders[key] = self._ordered(*key)
        return self._orders[key]

    def _ordered(self, grid: Grid, window: Grid) -> Order:
        device, slots = self.module.inv_freq.device, self.cell[0] * self.cell[1]
        order = window_order(grid, window, device)[:, None] * slots + torch.arange(slots, device=device)
        return order.flatten(), order.flatten().argsort()

    def _on(self, grid: Grid) -> Table:
        if torch.compiler.is_compiling():
            return self._made(grid)
        if grid not in self._tables:
            with torch.inference_mode(False):  # a table made under inference must also serve training
                self._tables[grid] = self._made(grid)
        return self._tables[grid]

    def _made(self, grid: Grid) -> Table:
        device = self.module.inv_freq.device
        rows, columns = (
            (torch.arange(side, device=device) * (entry / side) * slots)[:, None]
            + torch.arange(slots, device=device)
            for side, entry, slots in zip(grid, self.cells, self.cell, strict=True)
        )  # [cells along the axis, slots]
        axes = torch.broadcast_tensors(rows[:, None, :, None], columns[None, :, None, :])
        places = torch.stack([axis.flatten() for axis in axes], dim=1)  # [cells * slots, 2]
        angles = (places[..., None].float() * self.module.inv_freq.float()).flatten(1).repeat(1, 2)
        return angles.cos() * self.module.attention_scaling, angles.sin() * self.module.attention_scaling
