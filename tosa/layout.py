"""Tokens on a grid: what a step removes from each stretch of an axis, and the cells that remain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from tosa.grid import AxisWindows, grid_windows, shrink
from tosa.matching import Assignment
from tosa.sorting import argsort
from tosa.spec import MergeStep
from tosa.tokens import Tokens


def step_windows(tokens: Tokens, step: MergeStep, halves: bool = False) -> tuple[AxisWindows, AxisWindows]:
    """Return the stretches of rows and of columns that a step shortens, windows respected.

    halves: a stretch can lose half at most. Raises ValueError without a grid, without step.r_hw, or when a
    stretch would lose more than it can, or all of it.
    """
    if tokens.grid is None or step.r_hw is None:
        raise ValueError("this method keeps a grid: it needs tokens with one, and a step with r_hw")
    rows, columns = grid_windows(tokens.grid, tokens.window, step.r_hw)
    if not all(0 <= removed <= (length // 2 if halves else length - 1) for length, removed in rows + columns):
        most = "half" if halves else "all but one"
        limit = f"window {tokens.window}: at most {most} of the rows and columns can go"
        raise ValueError(f"r_hw {step.r_hw} does not fit a grid of {tokens.grid}, {limit}")
    return rows, columns


def on_smaller_grid(merged: Tokens, before: Tokens, step: MergeStep) -> Tokens:
    """Write the grid and the window after `step` into merged tokens that are row-major again."""
    assert before.grid is not None and step.r_hw is not None
    grid, window = shrink(before.grid, before.window, step.r_hw)
    return replace(merged, grid=grid, window=window)


def cells(windows: AxisWindows, device: torch.device) -> Tensor:
    """Split each stretch into as many near-equal pieces as it keeps: [length], the piece of each place."""
    pieces, first = [], 0
    for length, removed in windows:
        kept = length - removed
        pieces.append(first + torch.arange(length, device=device) * kept // length)
        first += kept
    return torch.cat(pieces)


def centres(windows: AxisWindows, device: torch.device) -> Tensor:
    """Return the place in the middle of each piece of `cells`, the earlier of two: int64 [pieces]."""
    middles, start = [], 0
    for length, removed in windows:
        kept = length - removed
        # Piece i begins at the smallest place p with p * kept // length == i.
        bounds = (torch.arange(kept + 1, device=device) * length + kept - 1) // kept
        middles.append(start + (bounds[:-1] + bounds[1:] - 1) // 2)
        start += length
    return torch.cat(middles)


def cell_assignment(tokens: Tokens, rows: AxisWindows, columns: AxisWindows) -> Assignment:
    """Group the patch tokens by the cells of both axes; the token in the middle of a cell leads it."""
    assert tokens.grid is not None
    device, prefix, batch = tokens.x.device, tokens.num_prefix, tokens.x.shape[0]
    row_centres, column_centres = centres(rows, device), centres(columns, device)
    width = len(column_centres)
    dest = (cells(rows, device)[:, None] * width + cells(columns, device)).flatten()
    survivor = (row_centres[:, None] * tokens.grid[1] + column_centres).flatten()
    joins = survivor[dest] != torch.arange(len(dest), device=device)
    merged = argsort(joins.int())[len(survivor) :]  # those that lead come first
    return Assignment(
        dest=after_prefix(dest, prefix, batch),
        num_out=prefix + len(survivor),
        survivor=after_prefix(survivor, prefix, batch),
        merged=prefix + merged.expand(batch, -1),
    )


def after_prefix(index: Tensor, num_prefix: int, batch: int) -> Tensor:
    """Turn indices of patch tokens [M] or [B, M] into indices of all tokens, the prefix first: [B, N]."""
    prefix = torch.arange(num_prefix, device=index.device)
    return torch.cat([prefix.expand(batch, -1), num_prefix + index.expand(batch, -1)], dim=1)


@dataclass(frozen=True)
class Blocks:
    """Some equal stretches of an axis, one after another."""

    start: int
    count: int
    length: int


@dataclass(frozen=True)
class EqualWindows:
    """Neighbouring stretches that lose the same: where they are before a step, and after it."""

    before: Blocks
    after: Blocks


def equal_windows(windows: AxisWindows) -> list[EqualWindows]:
    """Group equal neighbouring stretches: the whole windows of an axis, then the partial one."""
    found, before, after = [], 0, 0
    for (length, removed), equal in groupby(windows):
        count = len(list(equal))
        found.append(EqualWindows(Blocks(before, count, length), Blocks(after, count, length - removed)))
        before, after = before + count * length, after + count * (length - removed)
    return found


def window_partition(values: Tensor, rows: Blocks, columns: Blocks) -> Tensor:
    """Partition a grid into windows: values [B, H, W, ...] -> [B * windows, rows * columns of one, ...]."""
    part = values[:, rows.start : rows.start + rows.count * rows.length]
    part = part[:, :, columns.start : columns.start + columns.count * columns.length]
    part = part.unflatten(2, (columns.count, columns.length)).unflatten(1, (rows.count, rows.length))
    return part.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def window_unpartition(windows: Tensor, rows: Blocks, columns: Blocks) -> Tensor:
    """Undo the partition into windows: [B * windows, rows * columns of one, ...] -> [B, h, w, ...]."""
    parts = windows.unflatten(1, (rows.length, columns.length))
    parts = parts.unflatten(0, (-1, rows.count, columns.count)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)
