"""The tokens of a batch while a ViT merges them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tosa.cells import cell_major, join_slots, repeat_slots, slot_means, split_slots
from tosa.grid import Grid, divide


@dataclass(frozen=True)
class Blend:
    """Rebuild each patch from K tokens: index [B, P, K] int64, weight [B, P, K] (Expedite)."""

    index: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Tokens:
    """Hold the residual stream and what each token stands for.

    B images, P patches at entry, N tokens now (prefix included), C channels, S spatial dimensions.
    Prefix tokens (class, registers) come first and are never merged; they are not patches, so `source`
    does not mention them although it counts them in its indices.
    Where cells of several patches merge as one, a token is a cell, and P counts cells: everything is per
    cell but x, which has a row for each slot, [B, prefix + (N - prefix) * slots, C], the slots of a cell side
    by side. Methods get tokens `as_cells`.
    """

    x: Tensor  # [B, N, C]
    size: Tensor  # [B, N] float32, patches each token stands for (1 for a prefix token)
    source: Tensor  # [B, P] int64, the token that holds each patch, -1 if dropped; [B, 0] if not tracked
    grid: tuple[int, int] | None  # row-major (rows, columns) while that layout still exists
    spatial: Tensor | None = None  # [B, N, S], merged along with x
    num_prefix: int = 0
    entry_grid: tuple[int, int] | None = None  # the grid before any merging
    window: tuple[int, int] | None = None  # (rows, columns) of an attention window on the grid as it is now
    position: Tensor | None = None  # [B, N] int64, entry patch whose place a token keeps; None: not tracked
    has_holes: bool = False  # some patches were dropped
    is_weighted: bool = (
        False  # sizes may differ from 1, so that proportional attention is not plain attention
    )
    blend: Blend | None = None  # a soft way back, where a method has one
    cell: tuple[int, int] = (1, 1)  # (rows, columns) of patches that are one token
    regions: tuple[tuple[int, int], ...] | None = None  # (windows, tokens of each), window after window

    @property
    def slots(self) -> int:
        """Patches of one cell."""
        return self.cell[0] * self.cell[1]

    @staticmethod
    def start(
        x: Tensor,
        grid: tuple[int, int],
        num_prefix: int = 0,
        spatial: Tensor | None = None,
        window: tuple[int, int] | None = None,
        track_source: bool = True,
        track_position: bool = False,
        cell: tuple[int, int] = (1, 1),
    ) -> Tokens:
        """Wrap the embeddings of an unmerged image: every token is itself.

        x [B, num_prefix + rows*columns, C]; spatial [B, P, S] (patches only) or [B, N, S].
        cell: x is in the order of `cell_major`; grid, window and spatial are of patches, spatial in
        row-major order, and is averaged over the patches of each cell.
        Without `track_source` there is no way back to the grid; `position` (0 for prefix tokens) is for
        encoders that need to know where a merged token stands. Raises ValueError when counts do not agree.
        """
        batch, n, _ = x.shape
        rows, columns = grid
        grid, patches = (rows, columns), rows * columns
        if n != num_prefix + patches:
            raise ValueError(f"{n} tokens do not fit {num_prefix} prefix tokens and a grid of {grid}")
        if spatial is not None:
            spatial = _with_prefix(spatial, batch, patches, num_prefix)
        if cell != (1, 1):
            spatial = None if spatial is None else _cell_means(spatial, grid, cell, num_prefix)
            grid, window = divide(grid, cell), None if window is None else divide(window, cell)
            n = num_prefix + grid[0] * grid[1]
        index = torch.arange(n, device=x.device).expand(batch, n)
        return Tokens(
            x=x,
            size=torch.ones(batch, n, device=x.device),
            source=index[:, num_prefix:] if track_source else index[:, :0],
            grid=grid,
            spatial=spatial,
            num_prefix=num_prefix,
            entry_grid=grid,
            window=window,
            position=(index - num_prefix).clamp(min=0) if track_position else None,
            cell=cell,
        )


def as_cells(tokens: Tokens) -> Tokens:
    """Make one row of each cell, as methods need it: x [B, N, slots * C]. Patches stay as they are."""
    if tokens.cell == (1, 1):
        return tokens
    return replace(tokens, x=join_slots(tokens.x, tokens.num_prefix, tokens.slots))


def as_slots(tokens: Tokens) -> Tokens:
    """Undo `as_cells`."""
    if tokens.cell == (1, 1):
        return tokens
    return replace(tokens, x=split_slots(tokens.x, tokens.num_prefix, tokens.slots))


def cells_of(tokens: Tokens) -> Tensor:
    """Return the slots of every token without the prefix, as a pixel shuffle reads them: [B, N, slots, C]."""
    return tokens.x[:, tokens.num_prefix :].unflatten(1, (-1, tokens.slots))


def cell_places(tokens: Tokens) -> Tensor:
    """Return row and column, on the grid before merging, of the cell (or patch) whose place a token keeps.

    int64 [B, N, 2] without the prefix. Raises ValueError when positions were not tracked.
    """
    if tokens.position is None or tokens.entry_grid is None:
        raise ValueError("these tokens do not know their places: start them with track_position=True")
    place, columns = tokens.position[:, tokens.num_prefix :], tokens.entry_grid[1]
    return torch.stack([place.div(columns, rounding_mode="floor"), place % columns], dim=-1)


def sizes_of_rows(tokens: Tokens) -> Tensor:
    """Return the size of every row of x: float32 [B, prefix + (N - prefix) * slots]."""
    if tokens.cell == (1, 1):
        return tokens.size
    return repeat_slots(tokens.size, tokens.num_prefix, tokens.slots)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows: values [B, N, C], index [B, M] -> [B, M, C]."""
    _, n, channels = values.shape
    # Whole rows of the flattened batch: several times faster on the CPU than a gather along dim 1.
    return values.flatten(0, 1).index_select(0, flat_rows(index, n)).view(*index.shape, channels)


def flat_rows(index: Tensor, n: int) -> Tensor:
    """Turn row numbers [B, M] of n rows per image into those of the flattened batch [B * M]."""
    return (torch.arange(index.shape[0], device=index.device)[:, None] * n + index).flatten()


def _cell_means(spatial: Tensor, grid: Grid, cell: Grid, num_prefix: int) -> Tensor:
    """Average codes of a row-major grid of patches over each cell: [B, prefix + P, S] -> [B, N, S]."""
    patches = cell_major(spatial[:, num_prefix:], grid, cell)
    codes = torch.cat([spatial[:, :num_prefix], patches], dim=1)
    return slot_means(codes, num_prefix, cell[0] * cell[1])


def _with_prefix(spatial: Tensor, batch: int, patches: int, num_prefix: int) -> Tensor:
    if spatial.ndim == 3 and spatial.shape[:2] == (batch, patches + num_prefix):
        return spatial
    if spatial.ndim != 3 or spatial.shape[:2] != (batch, patches):
        raise ValueError(f"spatial tokens {tuple(spatial.shape)} do not fit: give [{batch}, {patches}, S]")
    return torch.cat([spatial.new_zeros(batch, num_prefix, spatial.shape[-1]), spatial], dim=1)
