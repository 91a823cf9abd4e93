"""Rotary tables of timm for merged tokens: each survivor keeps its place, or a smaller grid is laid out.

A table row holds the sines and cosines that rotate queries and keys at one place; prefix tokens have none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    apply_rot_embed_cat,
    build_rotary_pos_embed,
    get_mixed_freqs,
    get_mixed_grid,
)
from torch import Tensor

from tosa import Tokens
from vlm.adapters.adapter import Grid, unsupported


@dataclass(frozen=True)
class Rotary:
    """Look up rotary tables: `module` is the model's own, `grid` the patch grid at entry.

    While tokens lie on a grid, the table is laid out over it so that it spans what the entry grid spans
    (CubistMerge on DINOv3); otherwise each token has the row of the patch whose place it keeps.
    """

    module: Any
    grid: Grid
    _tables: dict[Grid, Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )  # of this adapter only

    def table(self, tokens: Tokens, layer: int) -> Tensor:
        """Return rows for the patch tokens: [N', 2D] or, with positions per image, [B, 1, N', 2D].

        With frequencies learned per layer and head: [heads, N', 2D] or [B, heads, N', 2D].
        """
        if tokens.grid is not None:
            return self._on(tokens.grid, layer)
        assert tokens.position is not None, "a rotary adapter needs tokens that keep their position"
        entry, position = self._on(self.grid, layer), tokens.position[:, tokens.num_prefix :]
        if entry.ndim == 2:
            return entry[position][:, None]
        return entry[:, position].transpose(0, 1)

    def _on(self, grid: Grid, layer: int) -> Tensor:
        if isinstance(self.module, RotaryEmbeddingMixed):
            return _mixed_table(self.module, self.grid, grid, layer)
        if torch.compiler.is_compiling():
            return _axial_table(self.module, self.grid, grid)
        if grid not in self._tables:
            with torch.inference_mode(False):  # a table made under inference must also serve training
                self._tables[grid] = _axial_table(self.module, self.grid, grid)
        return self._tables[grid]


def rotary(module: Any, grid: Grid, name: str = "Eva") -> Rotary | None:
    """Check the rotary module of a model; None for a model without one."""
    if module is None:
        return None
    if not isinstance(module, RotaryEmbeddingCat | RotaryEmbeddingDinoV3 | RotaryEmbeddingMixed):
        raise unsupported(name, f"{type(module).__name__} is not supported")
    if module.training and module.aug_active:
        raise unsupported(name, "its rotary coordinates are drawn at random while training")
    return Rotary(module, grid)


def rotate(x: Tensor, table: Tensor, num_prefix: int, half: bool) -> Tensor:
    """Rotate all but the prefix tokens of x [B, heads, N, D]."""
    turned = apply_rot_embed_cat(x[:, :, num_prefix:], table, half=half)
    return torch.cat([x[:, :, :num_prefix], turned], dim=2)


def _axial_table(module: Any, entry: Grid, grid: Grid) -> Tensor:
    if grid == entry:  # exactly as the library looks it up
        return module.get_embed() if module.feat_shape is not None else module.get_embed(shape=list(grid))
    if isinstance(module, RotaryEmbeddingDinoV3):  # coordinates run from -1 to 1 on every grid
        return module.get_embed(shape=list(grid))
    table = build_rotary_pos_embed(
        list(grid),
        bands=module.bands,
        in_pixels=module.in_pixels,
        ref_feat_shape=_reference(module, entry),
        grid_offset=module.grid_offset,
        grid_indexing=module.grid_indexing,
        rotate_half=module.rotate_half,
        device=module.bands.device,
    )
    return torch.cat(table, dim=-1)


def _reference(module: Any, entry: Grid) -> list[int]:
    """Return the grid whose extent the coordinates are scaled to."""
    return list(entry if module.ref_feat_shape is None else module.ref_feat_shape)


def _mixed_table(module: Any, entry: Grid, grid: Grid, layer: int) -> Tensor:
    first, second = get_mixed_grid(list(grid), module.grid_indexing, device=module.freqs.device)
    if grid != entry:
        scale = [entry[0] / grid[0], entry[1] / grid[1]]
        by_first, by_second = scale if module.grid_indexing == "ij" else reversed(scale)
        first, second = first * by_first, second * by_second
    return get_mixed_freqs(module.freqs[:, layer], first, second)
