"""A grid method for tests: every window (or the grid) keeps its first rows and columns, no others."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tosa import EncoderShape, MergeMethod, MergePlan, MergeSpec, MergeStep, Tokens, make_plan
from tosa.grid import axis_windows, shrink


def crop(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    assert tokens.grid is not None and step.r_hw is not None
    assert metric is tokens.x  # the residual stream, at the entry of a layer
    rows, columns = tokens.grid
    sizes = tokens.window or (None, None)
    row, row_owner = _kept(rows, sizes[0], step.r_hw[0])
    column, column_owner = _kept(columns, sizes[1], step.r_hw[1])
    owner = (row_owner[:, None] * len(column) + column_owner).flatten() + tokens.num_prefix
    kept = (row[:, None] * columns + column).flatten() + tokens.num_prefix
    index = torch.cat([torch.arange(tokens.num_prefix), kept])
    grid, window = shrink(tokens.grid, tokens.window, step.r_hw)
    return replace(
        tokens,
        x=tokens.x[:, index],
        size=tokens.size[:, index],
        source=owner[tokens.source - tokens.num_prefix],
        grid=grid,
        window=window,
        position=None if tokens.position is None else tokens.position[:, index],
    )


CROP = MergeMethod("crop", "Crop", None, "before_block", crop, keeps_grid=True)


def crop_plan(shape: EncoderShape, r_hw: tuple[int, int]) -> MergePlan:
    """Plan one crop before layer 1."""
    plain = make_plan(MergeSpec(), shape)
    grid, _ = shrink(shape.grid, shape.window, r_hw)
    n = grid[0] * grid[1] + shape.num_prefix
    steps = (None, MergeStep(1, r=plain.counts[0] - n, r_hw=r_hw), *plain.steps[2:])
    counts = (*plain.counts[:2], *[n] * (len(plain.counts) - 2))
    return replace(plain, method="crop", steps=steps, counts=counts, at_entry=True)


def _kept(length: int, window: int | None, removed: int) -> tuple[Tensor, Tensor]:
    """Give the kept indices of an axis, and for every index the kept one (by rank) that stands for it."""
    kept, owner, start = list[int](), list[int](), 0
    for span, gone in axis_windows(length, window, removed):
        first = len(kept)
        kept += range(start, start + span - gone)
        owner += [first + min(i, span - gone - 1) for i in range(span)]
        start += span
    return torch.tensor(kept), torch.tensor(owner)
