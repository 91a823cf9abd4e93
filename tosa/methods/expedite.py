"""Expedite (arXiv 2210.01035): cluster the grid softly, go on with the centroids, blend them back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.blending import follow
from tosa.clustering import cluster
from tosa.grid import AxisWindows, remaining
from tosa.layout import (
    EqualWindows,
    after_prefix,
    cell_assignment,
    equal_windows,
    on_smaller_grid,
    step_windows,
    window_partition,
    window_unpartition,
)
from tosa.methods.method import MergeMethod
from tosa.methods.options import BadOption, option, options_of, require_integer, require_number
from tosa.precision import upcast
from tosa.reduction import apply
from tosa.spec import MergeStep
from tosa.tokens import Tokens


@dataclass(frozen=True)
class ExpediteOptions:
    """Settings of Expedite."""

    iterations: int = option(5, "rounds of clustering.")
    temperature: float = option(
        0.01, "how sharply squared distances choose, for features 1280 wide (scaled by 1280 / width)."
    )
    neighbourhood: int = option(5, "rows and columns of centroids that a token may choose from, odd.")
    top_k: int = option(20, "tokens that each patch is rebuilt from on the way back.")

    def __post_init__(self) -> None:
        require_integer("iterations", self.iterations, 1, 20)
        require_number("temperature", self.temperature, 0.0)
        require_integer("neighbourhood", self.neighbourhood, 1, 31)
        require_integer("top_k", self.top_k, 1, 100)  # memory grows with it, patch by patch
        if self.neighbourhood % 2 == 0:
            raise BadOption(f"neighbourhood must be odd, got {self.neighbourhood}")


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Replace the patch tokens by the centroids of a grid that is step.r_hw rows and columns smaller.

    Centroids are means under soft weights (see `tosa.clustering`), inside each window where there are
    windows. `source` and `size` follow the hard choice, each token's nearest allowed centroid; a centroid
    that no token chose has size 0 and, under proportional attention, is not attended to. The soft way back,
    `Tokens.blend`, is made when the source is tracked: the top_k tokens nearest to a patch (of its window),
    weighted by exp(-temperature * distance). The weights sum to 1; the release divides them by their L2
    norm instead, so that flat regions come back longer, which only a following layer norm hides.
    The metric is not read. A step that removes nothing returns the tokens. Raises ValueError without a grid.
    """
    options = options_of(step, ExpediteOptions)
    windows = step_windows(tokens, step)
    if step.r_hw == (0, 0):
        return tokens
    carried = [tokens.x] if tokens.spatial is None else [tokens.x, tokens.spatial]
    with torch.autocast(tokens.x.device.type, enabled=False):
        nearest, index, weight, *means = _cluster_windows(tokens, carried, windows, options)
    x, *spatial = (_behind_prefix(*pair, tokens.num_prefix) for pair in zip(carried, means, strict=True))
    cells = cell_assignment(tokens, *windows)
    dest = after_prefix(nearest.flatten(1), tokens.num_prefix, x.shape[0])
    assignment = replace(cells, dest=dest, merged=None)
    merged = apply(replace(tokens, spatial=None), assignment, lambda values, size, groups: x)
    blend = follow(tokens, index.flatten(1, 2), weight.flatten(1, 2), assignment.num_out)
    return on_smaller_grid(replace(merged, spatial=next(iter(spatial), None), blend=blend), tokens, step)


def _behind_prefix(old: Tensor, mean: Tensor, prefix: int) -> Tensor:
    return torch.cat([old[:, :prefix], mean.flatten(1, 2).to(old.dtype)], dim=1)


def _cluster_windows(
    tokens: Tokens, carried: list[Tensor], windows: tuple[AxisWindows, AxisWindows], options: ExpediteOptions
) -> list[Tensor]:
    """Cluster all windows and lay the results on grids.

    Returns nearest [B, H, W] and the blend's index and weight [B, H, W, K], for every token of the grid
    before, then the means [B, H', W', C] of what is carried.
    """
    bands = []
    for rows in equal_windows(windows[0]):
        band = [
            _region(tokens, carried, rows, columns, windows, options) for columns in equal_windows(windows[1])
        ]
        bands.append([torch.cat(parts, dim=2) for parts in zip(*band, strict=True)])
    return [torch.cat(parts, dim=1) for parts in zip(*bands, strict=True)]


def _region(
    tokens: Tokens,
    carried: list[Tensor],
    rows: EqualWindows,
    columns: EqualWindows,
    windows: tuple[AxisWindows, AxisWindows],
    options: ExpediteOptions,
) -> list[Tensor]:
    """Cluster the windows of one size."""
    grid = tokens.grid
    assert grid is not None

    def on_windows(values: Tensor) -> Tensor:
        return window_partition(
            values[:, tokens.num_prefix :].unflatten(1, grid), rows.before, columns.before
        )

    values = [upcast(on_windows(each), like=tokens.x) for each in carried]
    clusters = cluster(
        values[0],
        on_windows(upcast(tokens.size, like=tokens.x)),
        (rows.before.length, columns.before.length),
        (rows.after.length, columns.after.length),
        options.iterations,
        options.temperature,
        options.neighbourhood,
    )
    best = clusters.logits.topk(min(options.top_k, clusters.logits.shape[-1]), dim=-1)
    padding = (0, options.top_k - best.indices.shape[-1])  # a small window has fewer than top_k
    number = _numbers(windows, rows, columns, tokens.x.shape[0], values[0].device)
    index = number.gather(1, F.pad(best.indices, padding).flatten(1)).unflatten(1, (-1, options.top_k))
    per_token = [number.gather(1, clusters.nearest), index, F.pad(best.values.softmax(dim=-1), padding)]
    return [window_unpartition(each, rows.before, columns.before) for each in per_token] + [
        window_unpartition(clusters.share @ each, rows.after, columns.after) for each in values
    ]


def _numbers(
    windows: tuple[AxisWindows, AxisWindows],
    rows: EqualWindows,
    columns: EqualWindows,
    batch: int,
    device: torch.device,
) -> Tensor:
    """Number the centroids of each window through the whole grid: int64 [B * windows, M]."""
    height, width = remaining(windows[0]), remaining(windows[1])
    grid = torch.arange(height * width, device=device).view(1, height, width)
    return window_partition(grid, rows.after, columns.after).repeat(batch, 1)


EXPEDITE = MergeMethod(
    name="expedite",
    title="Expedite",
    paper="2210.01035",
    site="before_block",
    merge=merge,
    keeps_grid=True,
    options=ExpediteOptions,
    layers="one",
    first_layer=6,
    halves=False,
)
