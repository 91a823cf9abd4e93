"""ToSA (arXiv 2506.20066): ToMe's matching on a mix of visual similarity and closeness in the scene.

Takes the scene as spatial tokens; knows nothing about depth.
"""

from __future__ import annotations

from torch import Tensor

from tosa.matching import bipartite, cosine
from tosa.methods.method import MergeMethod
from tosa.reduction import apply, weighted_mean
from tosa.spec import MergeStep
from tosa.tokens import Tokens

# Patches at the same distance in the scene tie in theory; rounding keeps them tied on every machine.
_SPATIAL_GRID = 2.0**16


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge step.r tokens by alpha * visual + (1 - alpha) * spatial similarity; equals go by the visual one.

    Raises ValueError without spatial tokens.
    """
    if tokens.spatial is None:
        raise ValueError("tosa needs spatial tokens: start the tokens with spatial=spatial_tokens(z)")
    visual = cosine(metric, tokens.num_prefix)
    spatial = (cosine(tokens.spatial, tokens.num_prefix) * _SPATIAL_GRID).round() / _SPATIAL_GRID
    score = step.alpha * visual + (1.0 - step.alpha) * spatial
    return apply(tokens, bipartite(score, step.r, tokens.num_prefix, tie_break=visual), weighted_mean)


TOSA = MergeMethod(
    name="tosa",
    title="Token merging with Spatial Awareness",
    paper="2506.20066",
    site="before_mlp",
    merge=merge,
    needs_spatial=True,
    prop_attn=True,
)
