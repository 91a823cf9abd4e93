"""No merging: the plain encoder, as the baseline of comparisons."""

from __future__ import annotations

from torch import Tensor

from tosa.methods.method import MergeMethod
from tosa.spec import MergeStep
from tosa.tokens import Tokens


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Return the tokens unchanged."""
    return tokens


NONE = MergeMethod(name="none", title="No merging", paper=None, site="nowhere", merge=merge, keeps_grid=True)
