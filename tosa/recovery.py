"""The ways back from merged tokens to the grid of patches, and to the order of the grid."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tosa.cells import cell_major, row_major
from tosa.precision import upcast
from tosa.sorting import argsort
from tosa.tokens import Blend, Tokens, as_cells, as_slots, take


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


def whole_grid(tokens: Tokens) -> Tokens:
    """Return one token for every patch or cell of the entry grid again, with what `recover` gives it.

    In the order of the entry, without prefix tokens; every token knows its place. Raises ValueError when the
    source was not tracked.
    """
    assert tokens.entry_grid is not None
    rows, columns = (side * each for side, each in zip(tokens.entry_grid, tokens.cell, strict=True))
    x = recover(tokens)
    if tokens.cell != (1, 1):
        x = cell_major(x, (rows, columns), tokens.cell)
    return Tokens.start(x, (rows, columns), track_position=True, cell=tokens.cell)


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
        blend=None if tokens.blend is None else _ranked(tokens.blend, rank),
    )
    return as_slots(ordered)


def _ranked(blend: Blend, rank: Tensor) -> Blend:
    """Let a soft way back follow tokens to other places: rank [B, N], where each one went."""
    return replace(blend, index=rank.gather(1, blend.index.flatten(1)).view(blend.index.shape))


def _patches(cells: Tensor, tokens: Tokens) -> Tensor:
    """Put the slots of all cells of the entry on the grid of patches: [B, P, slots * C] -> row-major."""
    if tokens.cell == (1, 1):
        return cells
    assert tokens.entry_grid is not None
    (rows, columns), (height, width) = tokens.entry_grid, tokens.cell
    slots = cells.unflatten(2, (tokens.slots, -1)).flatten(1, 2)
    return row_major(slots, (rows * height, columns * width), tokens.cell)


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
