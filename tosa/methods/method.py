"""The form every merging method has: what it declares about itself, and one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tosa.spec import MergeStep
from tosa.tokens import Tokens


@dataclass(frozen=True)
class MergeMethod:
    """Declare a method and what it needs.

    merge(tokens, metric, step) is pure: inputs are not modified. metric [B, N, D] is the mean over heads of
    the keys of the layer.
    """

    name: str
    title: str
    paper: str | None  # arXiv identifier
    site: Literal["nowhere", "before_mlp"]  # where in a block it merges
    merge: Callable[[Tokens, Tensor, MergeStep], Tokens]
    needs_spatial: bool = False  # Tokens.spatial must be there
    keeps_grid: bool = False  # Tokens.grid survives
    prop_attn: bool = False  # default when the request does not say

    @property
    def merges(self) -> bool:
        return self.site != "nowhere"
