"""Pictures as one whole view and a canvas of tiles (LLaVA-NeXT, LLaVA-OneVision): geometry and packing.

The tiles of a picture share one plan. While the tokens keep a grid, the tiles are put together, the bars that
fill the canvas are cut off, and every row ends in a newline. Merged tokens without a grid stay tile by tile,
with a newline behind each tile, the bars among them. Where that is more than the picture has without merging,
the tokens go back to all patches first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tosa import MergePlan
from vlm.families.family import kept_grid
from vlm.families.layout import Box, Grid, Layout, Size, View, tile_boxes

MOST_OVER = 1.1  # a canvas of more tokens than the budget by this factor (of its side) is made smaller


def anyres_layout(size: Size, resolutions: Sequence[Sequence[int]], view_px: Size, grid: Grid) -> Layout:
    """Lay out a picture of (height, width): the whole of it first, then the tiles of the best resolution."""
    from transformers.image_processing_utils import select_best_resolution

    canvas = select_best_resolution(size, [tuple(each) for each in resolutions])
    tiles = canvas[0] // view_px[0], canvas[1] // view_px[1]
    views = (View(), *tile_boxes(tiles, _inner(size, canvas)))
    return Layout("anyres", size, grid, view_px, views, tiles)


def _inner(size: Size, canvas: Size) -> Box:
    """Return the part of the canvas that the picture fills between bars."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    height, width = (min(math.ceil(side * scale), whole) for side, whole in zip(size, canvas, strict=True))
    top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
    return Box(left / canvas[1], top / canvas[0], (left + width) / canvas[1], (top + height) / canvas[0])


def unpadded(rows: int, columns: int, size: Size) -> tuple[int, int]:
    """Return how many rows at the top and bottom, and columns at the sides, are bars.

    rows, columns: of the tokens of all tiles together. size: (height, width) of the picture.
    """
    height, width = size
    if width / height > columns / rows:
        inner = int(round(height * (columns / width), 7))
        return (rows - max(inner, 1)) // 2, 0
    inner = int(round(width * (rows / height), 7))
    return 0, (columns - max(inner, 1)) // 2


def packed_grid(layout: Layout, grid: Grid, budget: int | None) -> Grid:
    """Return the rows and columns of tokens that the tiles leave, without newlines.

    grid: of the tokens of one tile. budget: tokens at most, roughly; None for no limit.
    """
    rows, columns = layout.tiles[0] * grid[0], layout.tiles[1] * grid[1]
    bar_rows, bar_columns = unpadded(rows, columns, layout.size)
    rows, columns = rows - 2 * bar_rows, columns - 2 * bar_columns
    over = 0.0 if budget is None else math.sqrt(rows * columns / budget)
    return (int(rows // over), int(columns // over)) if over > MOST_OVER else (rows, columns)


def count_packed(layout: Layout, grid: Grid | None, tokens: int, budget: int | None) -> int:
    """Count what `pack` returns, for `tokens` of every view."""
    if grid is None:
        return tokens + math.prod(layout.tiles) * (tokens + 1)
    rows, columns = packed_grid(layout, grid, budget)
    return tokens + rows * (columns + 1)


def count_tiles(layout: Layout, plan: MergePlan, budget: int | None) -> int:
    """Count the tokens of a picture behind a plan: of the merged tiles, or of all patches if fewer."""
    whole = count_packed(layout, plan.shape.grid, plan.tokens_in, budget)
    return min(count_packed(layout, kept_grid(plan), plan.tokens_out, budget), whole)


def adds_tokens(layout: Layout, plan: MergePlan, budget: int | None) -> bool:
    """Say whether the merged tiles of a picture are more tokens than those without merging."""
    return count_packed(layout, kept_grid(plan), plan.tokens_out, budget) > count_tiles(layout, plan, budget)


def pack(features: Tensor, layout: Layout, grid: Grid | None, newline: Tensor, budget: int | None) -> Tensor:
    """Put the features [views, N, D] of a picture in one row [M, D]: the whole view, then its tiles."""
    whole, tiles = features[0], features[1:]
    if grid is None:
        ends = newline.to(tiles.dtype).expand(len(tiles), 1, -1)
        return torch.cat((whole, torch.cat((tiles, ends), dim=1).flatten(0, 1)))
    (down, across), (rows, columns) = layout.tiles, grid
    canvas = tiles.view(down, across, rows, columns, -1).permute(0, 2, 1, 3, 4)
    canvas = canvas.flatten(2, 3).flatten(0, 1)  # [down * rows, across * columns, D]
    bar_rows, bar_columns = unpadded(canvas.shape[0], canvas.shape[1], layout.size)
    canvas = canvas[bar_rows : canvas.shape[0] - bar_rows, bar_columns : canvas.shape[1] - bar_columns]
    kept = packed_grid(layout, grid, budget)
    if kept != tuple(canvas.shape[:2]):
        canvas = interpolate(canvas.permute(2, 0, 1)[None], kept, mode="bilinear")[0].permute(1, 2, 0)
    ends = newline.to(canvas.dtype).expand(len(canvas), 1, -1)
    return torch.cat((whole, torch.cat((canvas, ends), dim=1).flatten(0, 1)))
