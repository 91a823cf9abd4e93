"""The tokens of a batch while a ViT merges them, and the ways back to the patch grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tosa.cells import cell_major, join_slots, repeat_slots, row_major, slot_means, split_slots
from tosa.grid import Grid, divide
from tosa.precision import upcast
from tosa.sorting import argsort


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


def unmerge(tokens: Tokens) -> Tensor:
    """Copy every token back to its patches: [B, P, C] in row-major order; dropped patches are zero.

    Of cells, P is the number of patches all the same, and each one gets its own slot. Raises ValueError when
    the source was not tracked.
    """
    source, x = _tracked(tokens), as_cells(tokens).x
    if not tokens.has_holes:
        return _patches(take(x, source), tokens)
    return _patches(torch.where(source[..., None] < 0, 0, take(x, source.clamp(min=0))), tokens)


def recover(tokens: Tokens) -> Tensor:
    """Return features for every patch, for dense heads: [B, P, C] in row-major order.

    As `unmerge`, but a dropped patch gets the features of the nearest patch that was not (Euclidean on the
    grid, the first of equals), and a method with a soft way back uses it.
    Raises ValueError when the source was not tracked.
    """
    x = as_cells(tokens).x
    if tokens.blend is not None:
        index, weight = tokens.blend.index, tokens.blend.weight
        x, weight = upcast(x), upcast(weight, like=x)
        mix = weight.new_zeros(*index.shape[:2], x.shape[1]).scatter_add(2, index, weight)
        return _patches((mix @ x).to(tokens.x.dtype), tokens)
    source = _tracked(tokens)
    if tokens.has_holes:
        assert tokens.entry_grid is not None
        source = source.gather(1, _nearest_kept(source >= 0, tokens.entry_grid))
    return _patches(take(x, source), tokens)


def raster_order(tokens: Tokens) -> Tokens:
    """Sort the tokens by the first patch each one holds; prefix tokens stay first, in their order.

    Raises ValueError when the source was not tracked.
    """
    if tokens.grid is not None:
        return tokens
    source = _tracked(tokens)
    (batch, n), patches, device = tokens.size.shape, source.shape[1], tokens.x.device
    # A dropped patch (-1) writes into the spare last column.
    index = torch.where(source < 0, n, source)
    patch = torch.arange(patches, device=device).expand(batch, patches)
    first = torch.full((batch, n + 1), patches, dtype=torch.int64, device=device)
    first = first.scatter_reduce(1, index, patch, "amin")[:, :n]
    prefix = torch.arange(n, device=device) < tokens.num_prefix
    order = argsort(torch.where(prefix, -1, first))
    rank = order.argsort(dim=1)
    tokens = as_cells(tokens)
    ordered = replace(
        tokens,
        x=take(tokens.x, order),
        size=tokens.size.gather(1, order),
        source=torch.where(source < 0, -1, rank.gather(1, source.clamp(min=0))),
        spatial=None if tokens.spatial is None else take(tokens.spatial, order),
        position=None if tokens.position is None else tokens.position.gather(1, order),
    )
    return as_slots(ordered)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows: values [B, N, C], index [B, M] -> [B, M, C]."""
    _, n, channels = values.shape
    # Whole rows of the flattened batch: several times faster on the CPU than a gather along dim 1.
    return values.flatten(0, 1).index_select(0, flat_rows(index, n)).view(*index.shape, channels)


def flat_rows(index: Tensor, n: int) -> Tensor:
    """Turn row numbers [B, M] of n rows per image into those of the flattened batch [B * M]."""
    return (torch.arange(index.shape[0], device=index.device)[:, None] * n + index).flatten()


def _patches(cells: Tensor, tokens: Tokens) -> Tensor:
    """Put the slots of all cells of the entry on the grid of patches: [B, P, slots * C] -> row-major."""
    if tokens.cell == (1, 1):
        return cells
    assert tokens.entry_grid is not None
    (rows, columns), (height, width) = tokens.entry_grid, tokens.cell
    slots = cells.unflatten(2, (tokens.slots, -1)).flatten(1, 2)
    return row_major(slots, (rows * height, columns * width), tokens.cell)


def _cell_means(spatial: Tensor, grid: Grid, cell: Grid, num_prefix: int) -> Tensor:
    """Average codes of a row-major grid of patches over each cell: [B, prefix + P, S] -> [B, N, S]."""
    patches = cell_major(spatial[:, num_prefix:], grid, cell)
    codes = torch.cat([spatial[:, :num_prefix], patches], dim=1)
    return slot_means(codes, num_prefix, cell[0] * cell[1])


def _tracked(tokens: Tokens) -> Tensor:
    if tokens.source.shape[1] == 0:
        raise ValueError("these tokens do not know their patches: start them with track_source=True")
    return tokens.source


def _nearest_kept(kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """Find the nearest kept patch of every patch, the first of equals: bool [B, P] -> int64 [B, P]."""
    # The nearest of each row first, then the nearest row: P * (rows + columns) distances instead of P * P.
    on_grid = kept.unflatten(1, grid)
    row, column = (_squared_distances(side, kept.device) for side in grid)
    across = torch.where(on_grid[:, :, None], column, torch.inf)  # [B, rows, columns, columns]
    distance, nearest_column = across.min(dim=3)
    nearest_row = (row[..., None] + distance[:, None]).argmin(dim=2)  # over [B, rows, rows, columns]
    return (nearest_row * grid[1] + nearest_column.gather(1, nearest_row)).flatten(1)


def _squared_distances(side: int, device: torch.device) -> Tensor:
    place = torch.arange(side, device=device).float()
    return (place[:, None] - place) ** 2


def _with_prefix(spatial: Tensor, batch: int, patches: int, num_prefix: int) -> Tensor:
    if spatial.ndim == 3 and spatial.shape[:2] == (batch, patches + num_prefix):
        return spatial
    if spatial.ndim != 3 or spatial.shape[:2] != (batch, patches):
        raise ValueError(f"spatial tokens {tuple(spatial.shape)} do not fit: give [{batch}, {patches}, S]")
    return torch.cat([spatial.new_zeros(batch, num_prefix, spatial.shape[-1]), spatial], dim=1)
