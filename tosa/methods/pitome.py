"""PiToMe (arXiv 2405.16148): merge the tokens of most energy, which are in large clusters; protect the rest.

Energy is over patch tokens only, so prefix tokens neither have nor give any.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tosa.matching import Assignment, argsort_desc, best_edges, dot, join, unit_rows
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_number, require_word
from tosa.reduction import apply, weighted_mean
from tosa.spec import MergeStep
from tosa.tokens import Tokens, take


@dataclass(frozen=True)
class PitomeOptions:
    """Settings of PiToMe."""

    variant: str = option(
        "pitome",
        '"pitome" merges among the 2r tokens of highest energy, each second one into one of the others, and '
        'protects all other tokens; "bsm" splits all tokens by energy and merges the r most similar pairs.',
    )
    margin: float = option(
        0.9,
        "cosine similarity, in [-1, 1], above which a token counts as a neighbour, at the first layer; it "
        "falls linearly towards 0 after the last one.",
    )
    alpha: float = option(1.0, "how much tokens below the margin lower the energy, at least 0.")

    def __post_init__(self) -> None:
        require_word("variant", self.variant, ("pitome", "bsm"))
        require_number("margin", self.margin, -1, 1)
        require_number("alpha", self.alpha, 0)

    def margin_at(self, step: MergeStep) -> float:
        """Give m_l = m_0 (1 - l / L)."""
        return self.margin * (1 - step.layer / step.num_layers)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge step.r tokens, at most half of the patch tokens, by energy and cosine similarity of metric."""
    options = options_of(step, PitomeOptions)
    rows = unit_rows(metric[:, tokens.num_prefix :])
    order = argsort_desc(energy(rows, options.margin_at(step), options.alpha))
    r = min(step.r, rows.shape[1] // 2)
    match = _all_pairs if options.variant == "bsm" else _top_pairs
    return apply(tokens, match(rows, order, r, tokens.num_prefix), weighted_mean)


def energy(rows: Tensor, margin: float, alpha: float) -> Tensor:
    """Average f(cosine - margin) over all tokens, itself included: unit rows [B, T, D] -> [B, T].

    f(x) = x above zero and alpha (exp(x) - 1) below: high in a large cluster, low for a token alone.
    """
    return F.elu(dot(rows, rows) - margin, alpha=alpha, inplace=True).mean(dim=-1)


def _top_pairs(rows: Tensor, order: Tensor, r: int, num_prefix: int) -> Assignment:
    """Merge the odd ranks among the first 2r into the even ones; output: prefix | protected | targets."""
    merged, targets, protected = order[:, 0 : 2 * r : 2], order[:, 1 : 2 * r : 2], order[:, 2 * r :]
    # There is no best one of no targets.
    partner = dot(take(rows, merged), take(rows, targets)).argmax(dim=-1) if r else merged
    return join(num_prefix + protected, num_prefix + targets, num_prefix + merged, partner, num_prefix)


def _all_pairs(rows: Tensor, order: Tensor, r: int, num_prefix: int) -> Assignment:
    """Merge the r best of every second rank into the others; output: prefix | unmerged | targets."""
    sources, targets = order[:, 0::2], order[:, 1::2]
    merged, kept, partner = best_edges(dot(take(rows, sources), take(rows, targets)), r)
    kept, merged = sources.gather(1, kept), sources.gather(1, merged)
    return join(num_prefix + kept, num_prefix + targets, num_prefix + merged, partner, num_prefix)


# Proportional attention: the paper tracks sizes for it and the released models never pass them on, so that a
# merged token loses weight there. On, as the paper has it.
PITOME = MergeMethod(
    name="pitome",
    title="Protect Informative Tokens before Merging",
    paper="2405.16148",
    site="before_mlp",
    merge=merge,
    prop_attn=True,
    options=PitomeOptions,
)
