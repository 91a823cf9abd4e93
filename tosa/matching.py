"""Which tokens go together: bipartite matching of even and odd tokens (ToMe, arXiv 2210.09461).

Returns plain data and never touches the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Assignment:
    """Say where every token goes: dest [B, N] int64 in 0..num_out-1."""

    dest: Tensor
    num_out: int


def cosine(metric: Tensor, num_prefix: int) -> Tensor:
    """Compare every even patch token with every odd one: metric [B, N, D] -> [B, A, B'] float32.

    Parity counts from the first token, prefix included; prefix tokens are left out, which protects them.
    """
    with torch.autocast(metric.device.type, enabled=False):
        unit = F.normalize(metric.detach().float(), dim=-1)
        even, odd = _first_even_odd(num_prefix)
        return unit[:, even::2] @ unit[:, odd::2].mT


def bipartite(score: Tensor, r: int, num_prefix: int, tie_break: Tensor | None = None) -> Assignment:
    """Merge the r even tokens with the best score, each into its best odd token.

    score [B, A, B'] as `cosine` gives it; equal scores are decided by tie_break (same shape, higher wins),
    then by index. r is limited to half of the patch tokens. Output order: prefix | unmerged even tokens |
    odd tokens; unmerged ones by falling score, or by index when there is a prefix, as ToMe orders them.
    """
    batch, num_a, num_b = score.shape
    r = min(r, (num_a + num_b) // 2)
    best, partner, best_tie = _best_partner(score, tie_break)
    order = _falling(best, best_tie)
    merged, kept = order[:, :r], order[:, r:]
    if num_prefix:
        kept = kept.sort(dim=-1).values
    first_b = num_prefix + num_a - r
    even, odd = _first_even_odd(num_prefix)
    kept_dest = torch.arange(num_prefix, first_b, device=score.device).expand(batch, -1)
    even_dest = torch.empty(batch, num_a, dtype=torch.int64, device=score.device)
    even_dest = even_dest.scatter(1, kept, kept_dest).scatter(1, merged, first_b + partner.gather(1, merged))
    dest = torch.arange(num_prefix + num_a + num_b, device=score.device).repeat(batch, 1)
    dest[:, even::2] = even_dest
    dest[:, odd::2] = first_b + torch.arange(num_b, device=score.device)
    return Assignment(dest, first_b + num_b)


def _best_partner(score: Tensor, tie_break: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Best score [B, A], its column (the first of equals) and its tie_break value."""
    best, partner = score.max(dim=-1)
    if tie_break is None:
        return best, partner, None
    equals = torch.where(score == best[..., None], tie_break, -torch.inf)
    best_tie, partner = equals.max(dim=-1)
    return best, partner, best_tie


def _falling(best: Tensor, best_tie: Tensor | None) -> Tensor:
    if best_tie is None:
        return best.argsort(dim=-1, descending=True, stable=True)
    by_tie = best_tie.argsort(dim=-1, descending=True, stable=True)
    return by_tie.gather(1, best.gather(1, by_tie).argsort(dim=-1, descending=True, stable=True))


def _first_even_odd(num_prefix: int) -> tuple[int, int]:
    parity = num_prefix % 2
    return num_prefix + parity, num_prefix + 1 - parity
