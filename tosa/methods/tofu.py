"""ToFu (arXiv 2312.01026): ToMe's matching; early layers drop the even token, later ones fuse by MLERP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tosa.matching import bipartite, cosine
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_integer
from tosa.reduction import apply, by_slot, drop, mlerp
from tosa.spec import MergeStep
from tosa.tokens import Tokens


@dataclass(frozen=True)
class TofuOptions:
    """Settings of ToFu."""

    switch_layer: int | None = option(
        None,
        "the first layer that fuses; the ones before it drop. None is half of the layers that run; 0 always "
        "fuses, and any number beyond the last layer always drops.",
    )

    def __post_init__(self) -> None:
        if self.switch_layer is not None:
            require_integer("switch_layer", self.switch_layer, 0)

    def fuses(self, step: MergeStep) -> bool:
        """Whether a layer fuses its pairs, or drops."""
        return step.layer >= (step.num_layers // 2 if self.switch_layer is None else self.switch_layer)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Match step.r tokens by cosine similarity of metric [B, N, D], then drop or fuse them.

    A dropped token counts nowhere afterwards: sizes grow only where tokens are fused.
    """
    options = options_of(step, TofuOptions)
    assignment = bipartite(cosine(metric, tokens.num_prefix), step.r, tokens.num_prefix)
    if not options.fuses(step):
        return drop(tokens, assignment)
    return apply(tokens, assignment, by_slot(mlerp, tokens.slots))


# Proportional attention: unspecified in the paper. On, because a fused token stands for all its patches, as
# in ToMe; in the layers that drop it has no effect.
TOFU = MergeMethod(
    name="tofu",
    title="Token Fusion",
    paper="2312.01026",
    site="before_mlp",
    merge=merge,
    prop_attn=True,
    options=TofuOptions,
)
