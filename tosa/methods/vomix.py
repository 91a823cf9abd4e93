"""Vote&Mix (arXiv 2408.17062): the tokens that others vote for are redundant; mix them softly into the rest.

A token votes for the one that is most similar to it, so that votes mark what an image has much of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.blending import follow
from tosa.matching import argsort_desc, dot, join, unit_rows
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_number
from tosa.precision import upcast
from tosa.reduction import apply
from tosa.spec import MergeStep
from tosa.tokens import Blend, Tokens, take

MOST_REBUILT = 8  # tokens that a patch is rebuilt from on the way back


@dataclass(frozen=True)
class VomixOptions:
    """Settings of Vote&Mix."""

    temperature: float = option(
        0.05,
        "how softly a redundant token spreads, from 0.001 (into the most similar one) to 1 (nearly evenly).",
    )

    def __post_init__(self) -> None:
        require_number("temperature", self.temperature, 0.001, 1.0)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Mix the step.r patch tokens with most votes, at most half, into all others, which stay in their order.

    `source` and `size` follow the most similar token that stays; `blend` has the soft way back.
    """
    options = options_of(step, VomixOptions)
    rows = unit_rows(metric[:, tokens.num_prefix :], is_detached=False)  # the shares follow the similarity
    similarity = dot(rows, rows)
    r = min(step.r, similarity.shape[-1] // 2)
    if r == 0:
        return tokens
    order = argsort_desc(*votes(similarity.detach()))
    mixed, kept = order[:, :r], order[:, r:].sort(dim=1).values
    closeness = take(similarity, mixed).gather(2, kept[:, None].expand(-1, r, -1))
    share = (closeness / options.temperature).softmax(dim=-1)
    prefix = tokens.num_prefix
    joined = join(kept[:, :0], prefix + kept, prefix + mixed, closeness.argmax(dim=-1), prefix)
    x = _mix(tokens, kept, mixed, share)
    merged = apply(tokens, joined, lambda values, size, assignment: x)
    return replace(merged, blend=_way_back(tokens, kept, mixed, share, joined.num_out))


def votes(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Count who votes for each token, and give its similarity to the one it votes for: both [B, N].

    similarity [B, N, N], of which the diagonal does not count. The second decides between equal counts.
    """
    n = similarity.shape[-1]
    similarity = (similarity + similarity.mT) / 2  # rounding must not order two that vote for each other
    itself = torch.eye(n, dtype=torch.bool, device=similarity.device)
    best, voted = similarity.masked_fill(itself, -torch.inf).max(dim=-1)
    return torch.zeros_like(best).scatter_add(1, voted, torch.ones_like(best)), best


def _mix(tokens: Tokens, kept: Tensor, mixed: Tensor, share: Tensor) -> Tensor:
    """Average each token that stays with its shares of the mixed ones, all weighted by size: [B, M, C]."""
    prefix = tokens.num_prefix
    x, size = upcast(tokens.x[:, prefix:]), tokens.size[:, prefix:, None].to(upcast(tokens.x).dtype)
    given = torch.cat([take(x * size, mixed), take(size, mixed)], dim=-1)
    received = dot(share.to(given.dtype).mT, given.mT)
    own = take(size, kept)
    mean = (take(x, kept) * own + received[..., :-1]) / (own + received[..., -1:])
    return torch.cat([tokens.x[:, :prefix], mean.to(tokens.x.dtype)], dim=1)


def _way_back(tokens: Tokens, kept: Tensor, mixed: Tensor, share: Tensor, num_out: int) -> Blend | None:
    """Give every token before the step those after it that hold it."""
    batch, stay = kept.shape
    top = share.topk(min(MOST_REBUILT, stay), dim=-1)
    padding = (0, top.values.shape[-1] - 1)
    own = torch.arange(stay, device=kept.device).expand(batch, -1)[..., None]
    index = torch.cat([F.pad(own, padding), top.indices], dim=1)
    weight = torch.cat([F.pad(torch.ones_like(own, dtype=share.dtype), padding), _scaled(top.values)], dim=1)
    place = torch.cat([kept, mixed], dim=1).argsort(dim=1)
    return follow(tokens, take(index, place), take(weight, place), num_out)


def _scaled(weight: Tensor) -> Tensor:
    return weight / weight.sum(dim=-1, keepdim=True)


# Proportional attention: in no source that we could read. On, because a token that others were mixed into
# stands for them too; distances that dense heads read are nearer the truth with it.
VOMIX = MergeMethod(
    name="vomix",
    title="Vote & Mix",
    paper="2408.17062",
    site="before_mlp",
    merge=merge,
    prop_attn=True,
    options=VomixOptions,
)
