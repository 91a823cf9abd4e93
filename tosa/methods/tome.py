"""ToMe (arXiv 2210.09461): merge the even tokens most similar to an odd one, by the keys of the layer."""

from __future__ import annotations

from torch import Tensor

from tosa.matching import bipartite, cosine
from tosa.methods.method import MergeMethod
from tosa.reduction import apply, weighted_mean
from tosa.spec import MergeStep
from tosa.tokens import Tokens


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge step.r tokens by cosine similarity of metric [B, N, D]."""
    assignment = bipartite(cosine(metric, tokens.num_prefix), step.r, tokens.num_prefix)
    return apply(tokens, assignment, weighted_mean)


TOME = MergeMethod(
    name="tome", title="Token Merging", paper="2210.09461", site="before_mlp", merge=merge, prop_attn=True
)
