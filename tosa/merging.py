"""One merging step of an encoder, whatever a token is there: patches, cells of patches, windows of them."""

from __future__ import annotations

from torch import Tensor

from tosa.cells import slot_means
from tosa.methods.method import MergeMethod
from tosa.spec import MergeStep
from tosa.tokens import Tokens, as_cells, as_slots
from tosa.windows import merge_in_windows


def merge_step(method: MergeMethod, tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge as `method` does; metric has a row for every row of tokens.x: [B, rows, D].

    Cells are compared by the mean metric of their slots and merged slot by slot. At the entry of a layer
    the metric is x itself, the slots of a cell one after the other. Inside windows (`Tokens.regions`) every
    window merges by itself.
    """
    if tokens.cell == (1, 1) and tokens.regions is None:
        return method.merge(tokens, metric, step)
    cells = as_cells(tokens)
    if method.site == "before_block":
        metric = cells.x
    elif tokens.cell != (1, 1):
        metric = slot_means(metric, tokens.num_prefix, tokens.slots)
    if tokens.regions is not None:
        return as_slots(merge_in_windows(method.merge, cells, metric, step))
    return as_slots(method.merge(cells, metric, step))
