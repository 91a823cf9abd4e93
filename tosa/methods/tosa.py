"""ToSA (arXiv 2506.20066): ToMe's matching on a mix of visual similarity and closeness in the scene.

The scene is given as spatial tokens (`tosa.spatial`).
"""

from __future__ import annotations

from torch import Tensor

from tosa.matching import bipartite, cosine
from tosa.methods.method import MergeMethod
from tosa.reduction import apply, weighted_mean
from tosa.reliability import reliable_score
from tosa.spatial import split_depth
from tosa.spec import MergeStep
from tosa.tokens import Tokens

_EQUAL_DISTANCE = 2.0**-12  # far above float32 noise (5e-7), below the gaps between the codes of near patches


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge step.r tokens by alpha * visual + (1 - alpha) * spatial similarity; equals go by the visual one.

    With alpha "auto" the tokens themselves say what both are worth, see `tosa.reliability`.
    Raises ValueError without spatial tokens.
    """
    if tokens.spatial is None:
        raise ValueError("tosa needs spatial tokens: start the tokens with spatial=spatial_tokens(z)")
    visual = cosine(metric, tokens.num_prefix)
    if step.alpha == "auto":
        place, depth = split_depth(tokens.spatial)
        known = None if depth is None else cosine(depth, tokens.num_prefix)
        score = reliable_score(visual, cosine(place, tokens.num_prefix), known)
        return apply(tokens, bipartite(score, step.r, tokens.num_prefix), weighted_mean)
    spatial = cosine(tokens.spatial, tokens.num_prefix)
    if step.alpha == 0.0:
        # Equal distances on a grid differ in floating point: without this, rounding would decide.
        score, tie_break = (spatial / _EQUAL_DISTANCE).round(), visual
    else:
        score, tie_break = step.alpha * visual + (1.0 - step.alpha) * spatial, None
    return apply(tokens, bipartite(score, step.r, tokens.num_prefix, tie_break), weighted_mean)


TOSA = MergeMethod(
    name="tosa",
    title="Token merging with Spatial Awareness",
    paper="2506.20066",
    site="before_mlp",
    merge=merge,
    needs_spatial=True,
    prop_attn=True,
)
