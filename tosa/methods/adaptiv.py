"""AdapTiV (MICRO 2024): merge tokens with near ones in reading order, by how many of their signs agree.

Its hardware does that while it normalises, for signs cost one bit each. There a threshold says how many
tokens go; here the plan does, so that the threshold is the lowest score that still merges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.matching import best_edges, dot, join_in_order
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_integer
from tosa.precision import upcast
from tosa.reduction import apply, weighted_mean
from tosa.spec import MergeStep
from tosa.tokens import Tokens

_NEVER = -2.0  # below every share of agreement less disagreement


@dataclass(frozen=True)
class AdaptivOptions:
    """Settings of AdapTiV."""

    reach: int = option(
        16, "how many odd tokens before and behind it, in reading order, an even token is compared with."
    )

    def __post_init__(self) -> None:
        require_integer("reach", self.reach, 1, 4096)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Merge the step.r even patch tokens, at most half, whose signs agree best with an odd one's nearby.

    Signs are of x less its mean over channels, which layer norm looks at; the metric is not read. Equals go
    by index. Tokens stay in their order.
    """
    options = options_of(step, AdaptivOptions)
    signs = sign_rows(tokens.x[:, tokens.num_prefix :])
    even, odd = signs[:, 0::2], signs[:, 1::2]
    score = dot(even, odd) / max(signs.shape[-1], 1)
    score = score.masked_fill(~near(even.shape[1], odd.shape[1], options.reach, score.device), _NEVER)
    merged, kept, partner = best_edges(score, step.r)
    first = tokens.num_prefix
    odds = (first + 1 + 2 * torch.arange(odd.shape[1], device=score.device)).expand(signs.shape[0], -1)
    assignment = join_in_order(first + 2 * kept, odds, first + 2 * merged, partner, first)
    return apply(tokens, assignment, weighted_mean)


def sign_rows(x: Tensor) -> Tensor:
    """Return the signs of rows less their means, in float32 or better and detached: [B, N, C] of -1, 0, 1."""
    rows = upcast(x.detach())
    return (rows - rows.mean(dim=-1, keepdim=True)).sign()


def near(evens: int, odds: int, reach: int, device: torch.device) -> Tensor:
    """Mark the odd tokens that an even one is compared with: bool [A, B'], at least one in every row.

    Between even token i and odd token j lie j - i whole pairs, so that j from i - reach to i + reach - 1 are
    the nearest `reach` on either side.
    """
    i = torch.arange(evens, device=device).clamp(max=odds)[:, None]  # the last even one has none behind it
    j = torch.arange(odds, device=device)
    return (j >= i - reach) & (j < i + reach)


ADAPTIV = MergeMethod(
    name="adaptiv",
    title="Sign-similarity token merging of AdapTiV",
    paper=None,
    site="before_mlp",
    merge=merge,
    prop_attn=True,
    options=AdaptivOptions,
)
