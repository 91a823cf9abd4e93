"""Methods that keep no grid inside attention windows: every window merges as an image of its own.

Windows of one size lose the same number of tokens, so that they stay a batch, and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tosa.grid import Grid, grid_windows, regions
from tosa.layout import after_prefix, equal_windows, window_partition
from tosa.spec import MergeStep
from tosa.tokens import Tokens, as_cells, as_slots, take

Merge = Callable[[Tokens, Tensor, MergeStep], Tokens]


def window_order(grid: Grid, window: Grid, device: torch.device) -> Tensor:
    """List the places of a row-major grid window after window, as `regions` counts them: int64 [places]."""
    places = torch.arange(grid[0] * grid[1], device=device).view(1, *grid)
    rows, columns = (equal_windows(axis) for axis in grid_windows(grid, window, (0, 0)))
    parts = [window_partition(places, down.before, across.before) for down in rows for across in columns]
    return torch.cat([part.flatten() for part in parts])


def by_window(tokens: Tokens) -> Tokens:
    """Order tokens on a grid window after window, those of one size together; prefix tokens stay first.

    The grid is gone afterwards. Raises ValueError without a grid or a window.
    """
    if tokens.grid is None or tokens.window is None:
        raise ValueError("ordering by window needs tokens on a grid with windows")
    places = window_order(tokens.grid, tokens.window, tokens.x.device)
    order = after_prefix(places, tokens.num_prefix, tokens.x.shape[0])
    rank = order.argsort(dim=1)
    cells = as_cells(tokens)
    ordered = replace(
        cells,
        x=take(cells.x, order),
        size=cells.size.gather(1, order),
        source=rank.gather(1, cells.source),
        spatial=None if cells.spatial is None else take(cells.spatial, order),
        position=None if cells.position is None else cells.position.gather(1, order),
        grid=None,
        window=None,
        regions=regions(tokens.grid, tokens.window),
    )
    return as_slots(ordered)


def merge_in_windows(merge: Merge, tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge inside each window, until those of each size keep as many tokens as step.kept says.

    tokens are `by_window`, and `as_cells`; metric [B, N, D].
    """
    assert tokens.regions is not None and step.kept is not None, "merging in windows needs both"
    before = tokens.regions
    after = tuple((number, kept) for (number, _), kept in zip(before, step.kept, strict=True))
    prefix, batch = tokens.num_prefix, tokens.x.shape[0]
    parts, dest, first, offset = [], [], prefix, prefix
    for (number, length), (_, kept) in zip(before, after, strict=True):
        part = _windows(tokens, first, number, length)
        if kept < length:
            rows = metric[:, first : first + number * length].reshape(batch * number, length, -1)
            part = merge(part, rows, replace(step, r=length - kept))
        start = offset + kept * torch.arange(number, device=tokens.x.device).repeat(batch)[:, None]
        dest.append(torch.where(part.source < 0, -1, start + part.source).view(batch, -1))
        parts.append(part)
        first, offset = first + number * length, offset + number * kept
    return replace(
        _joined(tokens, parts),
        source=_follow(tokens, torch.cat([_prefix(tokens), *dest], dim=1)),
        has_holes=tokens.has_holes or any(part.has_holes for part in parts),
        is_weighted=tokens.is_weighted or any(part.is_weighted for part in parts),
        grid=None,
        regions=after,
    )


def _windows(tokens: Tokens, first: int, number: int, length: int) -> Tokens:
    """Make a batch of windows of one size; `source` is of each window's own tokens."""
    part = slice(first, first + number * length)
    batch = tokens.x.shape[0] * number

    def rows(values: Tensor) -> Tensor:
        return values[:, part].reshape(batch, length, *values.shape[2:])

    return replace(
        tokens,
        x=rows(tokens.x),
        size=rows(tokens.size),
        source=torch.arange(length, device=tokens.x.device).expand(batch, -1),
        spatial=None if tokens.spatial is None else rows(tokens.spatial),
        position=None if tokens.position is None else rows(tokens.position),
        num_prefix=0,
        has_holes=False,
        is_weighted=False,
        regions=None,
    )


def _joined(tokens: Tokens, parts: list[Tokens]) -> Tokens:
    """Put the windows behind each other again, behind the prefix."""
    batch = tokens.x.shape[0]

    def behind_prefix(before: Tensor, values: list[Tensor]) -> Tensor:
        flat = [each.reshape(batch, -1, *each.shape[2:]) for each in values]
        return torch.cat([before[:, : tokens.num_prefix], *flat], dim=1)

    spatial = [part.spatial for part in parts if part.spatial is not None]
    position = [part.position for part in parts if part.position is not None]
    return replace(
        tokens,
        x=behind_prefix(tokens.x, [part.x for part in parts]),
        size=behind_prefix(tokens.size, [part.size for part in parts]),
        spatial=behind_prefix(tokens.spatial, spatial) if tokens.spatial is not None else None,
        position=behind_prefix(tokens.position, position) if tokens.position is not None else None,
    )


def _prefix(tokens: Tokens) -> Tensor:
    return torch.arange(tokens.num_prefix, device=tokens.x.device).expand(tokens.x.shape[0], -1)


def _follow(tokens: Tokens, dest: Tensor) -> Tensor:
    if tokens.source.shape[1] == 0:  # the source is not tracked
        return tokens.source
    source = tokens.source
    return torch.where(source < 0, -1, dest.gather(1, source.clamp(min=0)))
