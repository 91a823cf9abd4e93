"""SAINT (arXiv 2503.11549): drop tokens that have many close neighbours in the graph of similar tokens.

The release drops as many tokens as the batch has on average; here the plan says how many, so that an image
does not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.matching import argsort_desc, cosine, keep_only
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_number
from tosa.reduction import drop
from tosa.spec import MergeStep
from tosa.tokens import Tokens


@dataclass(frozen=True)
class SaintOptions:
    """Settings of SAINT."""

    tau: float = option(0.75, "cosine similarity, in [-1, 1], from which two tokens are neighbours.")
    gamma: float = option(
        10.0,
        "how much closeness beyond tau counts against the number of neighbours, from 0 (not at all) to 30.",
    )

    def __post_init__(self) -> None:
        require_number("tau", self.tau, -1, 1)
        require_number("gamma", self.gamma, 0, 30)  # exponential: 30 is far from overflow


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Drop the step.r tokens, every second patch token being a candidate, with the highest score.

    Output order: prefix | other candidates by descending score | the rest.
    """
    options = options_of(step, SaintOptions)
    prefix = tokens.num_prefix
    similarity = cosine(metric[:, prefix:], 0)
    batch, candidates, others = similarity.shape
    order = argsort_desc(redundancy(similarity, options.tau, options.gamma))
    r = min(step.r, (candidates + others) // 2)
    odd = (prefix + 1 + 2 * torch.arange(others, device=order.device)).expand(batch, -1)
    even = prefix + 2 * order
    return drop(tokens, keep_only(torch.cat([even[:, r:], odd], dim=1), even[:, :r], prefix))


def redundancy(similarity: Tensor, tau: float, gamma: float) -> Tensor:
    """Score candidates by their neighbours: similarity [B, A, B'] -> [B, A].

    With neighbours (similarity >= tau): their number times exp(gamma (their mean similarity - tau)), at least
    1; without: the mean of all similarities, always less.
    """
    near = similarity >= tau
    count = near.sum(dim=-1)
    closeness = torch.where(near, similarity - tau, 0.0).sum(dim=-1) / count.clamp(min=1)
    return torch.where(count > 0, count * (gamma * closeness).exp(), similarity.mean(dim=-1))


SAINT = MergeMethod(
    name="saint",
    title="Similarity-Aware Token Pruning",
    paper="2503.11549",
    site="before_mlp",
    merge=merge,
    options=SaintOptions,
    layers="first_half",
)
