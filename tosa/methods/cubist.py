"""CubistMerge (arXiv 2509.21764): join neighbours along rows, then along columns, so that a grid remains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tosa.adjacent import join_neighbours, line_assignment
from tosa.grid import AxisWindows
from tosa.layout import on_smaller_grid, step_windows
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_number
from tosa.precision import upcast
from tosa.reduction import apply, max_magnitude
from tosa.spec import MergeStep
from tosa.tokens import Tokens


@dataclass(frozen=True)
class CubistOptions:
    """Settings of CubistMerge."""

    depth_weight: float = option(
        0.0,
        "share of the spatial similarity in that of two neighbours, from 0 to 0.999; above 0 the method "
        "needs spatial tokens.",
    )

    def __post_init__(self) -> None:
        require_number("depth_weight", self.depth_weight, 0.0, 0.999)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Take step.r_hw[1] tokens from every row, then step.r_hw[0] from every column (of each window).

    Only neighbours join, by cosine similarity of x itself, which is compared anew between the two phases;
    the metric is not read. A group keeps the largest magnitude of its tokens in every channel.
    Raises ValueError without a grid, without the spatial tokens that depth_weight asks for, or when more than
    half of the rows or columns should go.
    """
    options = options_of(step, CubistOptions)
    if options.depth_weight and tokens.spatial is None:
        raise ValueError("depth_weight needs spatial tokens: start the tokens with spatial=spatial_tokens(z)")
    rows, columns = step_windows(tokens, step, halves=True)
    merged = _shorten(tokens, columns, "rows", options.depth_weight)
    merged = _shorten(merged, rows, "columns", options.depth_weight)
    return on_smaller_grid(merged, tokens, step)


def _shorten(tokens: Tokens, windows: AxisWindows, along: str, depth_weight: float) -> Tokens:
    """Merge within all rows, or within all columns."""
    assert tokens.grid is not None
    height, width = tokens.grid
    removed = sum(gone for _, gone in windows)
    if removed == 0:
        return tokens
    similarity = _neighbours(tokens.x, tokens, along)
    if depth_weight:
        assert tokens.spatial is not None
        spatial = _neighbours(tokens.spatial, tokens, along)
        similarity = (1 - depth_weight) * similarity + depth_weight * spatial
    target = join_neighbours(similarity, windows)
    merged = apply(tokens, line_assignment(target, windows, tokens.num_prefix, along), max_magnitude)
    height, width = (height, width - removed) if along == "rows" else (height - removed, width)
    return replace(merged, grid=(height, width))


def _neighbours(values: Tensor, tokens: Tokens, along: str) -> Tensor:
    """Compare every patch with the next one of its line by cosine: [B, N, C] -> [B, L, n-1]."""
    assert tokens.grid is not None
    patches = upcast(values.detach()[:, tokens.num_prefix :].unflatten(1, tokens.grid))
    if along == "columns":
        patches = patches.transpose(1, 2)
    norm = torch.linalg.vector_norm(patches, dim=-1)
    dot = (patches[:, :, :-1] * patches[:, :, 1:]).sum(-1)
    return dot / (norm[:, :, :-1] * norm[:, :, 1:]).clamp(min=torch.finfo(dot.dtype).tiny)


CUBIST = MergeMethod(
    name="cubist",
    title="CubistMerge",
    paper="2509.21764",
    site="before_block",
    merge=merge,
    keeps_grid=True,
    options=CubistOptions,
    spatial_option="depth_weight",
    layers="one",
    first_layer=1,
)
