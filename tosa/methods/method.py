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

    merge(tokens, metric, step) is pure: inputs are not modified. Between attention and MLP ("before_mlp")
    metric [B, N, D] is the mean over heads of the keys of the layer; at its entry ("before_block") it is the
    residual stream.
    """

    name: str
    title: str
    paper: str | None  # arXiv identifier
    site: Literal["nowhere", "before_mlp", "before_block"]  # where in a layer it merges
    merge: Callable[[Tokens, Tensor, MergeStep], Tokens]
    needs_spatial: bool = False  # Tokens.spatial must be there
    spatial_option: str | None = None  # the option that, above 0, makes it need Tokens.spatial
    keeps_grid: bool = False  # Tokens.grid survives
    prop_attn: bool = False  # default when the request does not say
    options: type | None = None  # frozen dataclass of its own settings; refuses bad values with ValueError
    layers: Literal["all", "first_half", "one"] = "all"  # which layers merge when the request does not say
    first_layer: int = 0  # for "one": where it stands, and where more begin if one cannot remove enough
    halves: bool = True  # a step removes at most half: of the tokens, for grids of each axis

    @property
    def merges(self) -> bool:
        return self.site != "nowhere"

    def needs_spatial_with(self, options: object | None) -> bool:
        """Whether these options require Tokens.spatial."""
        if self.spatial_option is None or options is None:
            return self.needs_spatial
        return self.needs_spatial or getattr(options, self.spatial_option) > 0
