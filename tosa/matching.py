"""Bipartite matching of tokens (ToMe, arXiv 2210.09461), with the assignment as plain data.

Matching only computes indices; `tosa.reduction` changes the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.precision import upcast
from tosa.sorting import argsort


@dataclass(frozen=True)
class Assignment:
    """The output token of every input token, and the leader of each group. All indices are int64."""

    dest: Tensor  # [B, N], 0..num_out-1
    num_out: int
    survivor: Tensor  # [B, num_out], the token whose place the group keeps; alone, a token leads itself
    merged: Tensor | None = None  # [B, r], the tokens that join another, where known: the rest need no work
    members: Tensor | None = None  # [B, num_out, K], the survivor first, and repeated where fewer than K


def unit_rows(metric: Tensor, *, is_detached: bool = True) -> Tensor:
    """Scale rows to length 1, in float32 or better: metric [B, N, D] -> [B, N, D].

    is_detached: they only choose tokens. Methods whose weights depend on them keep their gradient.
    """
    return F.normalize(upcast(metric.detach() if is_detached else metric), dim=-1)


def cosine(metric: Tensor, num_prefix: int) -> Tensor:
    """Compare every even patch token with every odd one: metric [B, N, D] -> [B, A, B'] as `unit_rows`.

    Parity counts from the first token, prefix included; prefix tokens are left out, which protects them.
    """
    even, odd = _first_even_odd(num_prefix)
    rows = unit_rows(metric)
    return dot(rows[:, even::2], rows[:, odd::2])


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Compare rows with rows, in their dtype even under autocast: [B, A, D], [B, B', D] -> [B, A, B']."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def bipartite(score: Tensor, r: int, num_prefix: int, tie_break: Tensor | None = None) -> Assignment:
    """Merge the r even tokens with the best score, each into its best odd token.

    score [B, A, B'] as `cosine` gives it; equal scores are decided by tie_break (same shape, higher wins),
    then by index. r is limited to half of the patch tokens. Output order: prefix | unmerged even tokens |
    odd tokens; unmerged ones by descending score, or by index when there is a prefix, as ToMe orders them.
    """
    batch, _, num_b = score.shape
    merged, kept, partner = best_edges(score, r, tie_break)
    if num_prefix:
        kept = kept.sort(dim=-1).values
    even, odd = _first_even_odd(num_prefix)
    odds = (odd + 2 * torch.arange(num_b, device=score.device)).expand(batch, -1)
    return join(even + 2 * kept, odds, even + 2 * merged, partner, num_prefix)


def best_edges(score: Tensor, r: int, tie_break: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the r rows with the best score: their indices [B, r], the other rows by descending score
    [B, A - r], and the best column of each chosen row [B, r].

    r is limited to half of rows and columns together.
    """
    best, partner, best_tie = _best_partner(score, tie_break)
    order = argsort_desc(best, best_tie)
    r = min(r, sum(score.shape[1:]) // 2)
    merged = order[:, :r]
    return merged, order[:, r:], partner.gather(1, merged)


def join(kept: Tensor, targets: Tensor, merged: Tensor, partner: Tensor, num_prefix: int) -> Assignment:
    """Send each merged token to one of the targets; output order: prefix | kept | targets.

    kept [B, K], targets [B, T] and merged [B, r] are token indices, partner [B, r] points into targets.
    """
    batch, num_kept = kept.shape
    prefix = torch.arange(num_prefix, device=kept.device).expand(batch, -1)
    survivor = torch.cat([prefix, kept, targets], dim=1)
    return _assign(survivor, merged, num_prefix + num_kept + partner)


def join_in_order(
    kept: Tensor, targets: Tensor, merged: Tensor, partner: Tensor, num_prefix: int
) -> Assignment:
    """Do as `join`, but leave the tokens that remain in the order they had."""
    batch = kept.shape[0]
    prefix = torch.arange(num_prefix, device=kept.device).expand(batch, -1)
    survivor = torch.cat([prefix, kept, targets], dim=1).sort(dim=1).values
    stays = prefix.new_zeros(batch, survivor.shape[1] + merged.shape[1]).scatter(1, survivor, 1)
    rank = stays.cumsum(dim=1) - 1
    return _assign(survivor, merged, rank.gather(1, targets.gather(1, partner)))


def keep_only(kept: Tensor, gone: Tensor, num_prefix: int) -> Assignment:
    """Remove the tokens `gone` [B, r], for `drop`; output order: prefix | kept.

    An assignment gives every token a destination; theirs is 0, a group that they do not lead.
    """
    prefix = torch.arange(num_prefix, device=kept.device).expand(kept.shape[0], -1)
    return _assign(torch.cat([prefix, kept], dim=1), gone, torch.zeros_like(gone))


def argsort_desc(values: Tensor, tie_break: Tensor | None = None) -> Tensor:
    """Order the columns of values [B, N] from high to low; equals by tie_break, then by index."""
    if tie_break is None:
        return argsort(values, descending=True)
    by_tie = argsort_desc(tie_break)
    return by_tie.gather(1, argsort_desc(values.gather(1, by_tie)))


def _assign(survivor: Tensor, merged: Tensor, merged_dest: Tensor) -> Assignment:
    (batch, num_out), device = survivor.shape, survivor.device
    dest = torch.empty(batch, num_out + merged.shape[1], dtype=torch.int64, device=device)
    own = torch.arange(num_out, device=device).expand(batch, -1)
    dest = dest.scatter(1, survivor, own).scatter(1, merged, merged_dest)
    return Assignment(dest, num_out, survivor, merged)


def _best_partner(score: Tensor, tie_break: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Best score [B, A], its column (the first of equals) and its tie_break value."""
    if score.shape[-1] == 0:  # the only patch has no partner, so that it cannot be chosen
        best = score.new_zeros(score.shape[:-1])
        return best, best.long(), None
    best, partner = score.max(dim=-1)
    if tie_break is None:
        return best, partner, None
    equals = torch.where(score == best[..., None], tie_break, -torch.inf)
    best_tie, partner = equals.max(dim=-1)
    return best, partner, best_tie


def _first_even_odd(num_prefix: int) -> tuple[int, int]:
    parity = num_prefix % 2
    return num_prefix + parity, num_prefix + 1 - parity
