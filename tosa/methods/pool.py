"""Average pooling of near-equal blocks of the grid: the baseline that ignores content."""

from __future__ import annotations

from torch import Tensor

from tosa.layout import cell_assignment, on_smaller_grid, step_windows
from tosa.methods.method import MergeMethod
from tosa.reduction import apply, weighted_mean
from tosa.spec import MergeStep
from tosa.tokens import Tokens


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Average blocks of neighbouring patches, weighted by size, until step.r_hw rows and columns are gone.

    Sides that halve give blocks of 2 x 2. The metric is not read. Raises ValueError without a grid.
    """
    rows, columns = step_windows(tokens, step)
    merged = apply(tokens, cell_assignment(tokens, rows, columns), weighted_mean)
    return on_smaller_grid(merged, tokens, step)


POOL = MergeMethod(
    name="pool",
    title="Average pooling",
    paper=None,
    site="before_block",
    merge=merge,
    keeps_grid=True,
    layers="one",
    first_layer=1,
    halves=False,
)
