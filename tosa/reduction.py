"""Reduce the tokens of each group to one; `apply` and `drop` update everything that a token carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tosa.exporters import require_exporter
from tosa.matching import Assignment
from tosa.precision import upcast
from tosa.tokens import Tokens, flat_rows, take

# values [B, N, C], size [B, N], assignment -> [B, num_out, C] in the dtype of values
Reduction = Callable[[Tensor, Tensor, Assignment], Tensor]

_LARGE = 2.0**40  # its square, summed over any number of channels, is far from the end of float32


def weighted_mean(values: Tensor, size: Tensor, assignment: Assignment) -> Tensor:
    """Average the tokens of each group, each weighted by the patches it stands for (ToMe).

    Sums in float32 (of float64 in float64); a token that is alone in its group comes out bit-equal.
    """
    joins = _joins(upcast(size, like=values), assignment)
    survivors, joining = upcast(take(values, joins.survivor)), upcast(take(values, joins.token))
    return _put(values, assignment, joins.dest, _mean(survivors, joining, joins))


def mlerp(values: Tensor, size: Tensor, assignment: Assignment) -> Tensor:
    """Take the direction of the weighted mean and the norm of the longest token of the group (ToFu).

    Computed in float32 (of float64 in float64); a token that is alone in its group comes out bit-equal.
    A mean that is zero, or so short that only rounding gives it a direction, becomes zero.
    """
    joins = _joins(upcast(size, like=values), assignment)
    survivors, joining = upcast(take(values, joins.survivor)), upcast(take(values, joins.token))
    scale = _longest(survivors.detach(), joining.detach(), joins, torch.inf)
    scale = torch.where(scale > _LARGE, scale / _LARGE, 1)  # 1 leaves every bit as it is
    survivors, joining = survivors / scale[..., None], joining / scale[..., None]
    longest = _longest(survivors, joining, joins, 2)
    mean = _mean(survivors, joining, joins)
    length = mean.norm(dim=-1)
    # A mean of up to r + 1 tokens has an error of r + 2 roundings of the longest one.
    is_zero = length <= (joins.token.shape[1] + 2) * torch.finfo(mean.dtype).eps * longest
    stretch = torch.where(is_zero, 0, longest / torch.where(is_zero, 1, length))
    return _put(values, assignment, joins.dest, mean * (stretch * scale)[..., None])


def max_magnitude(values: Tensor, size: Tensor, assignment: Assignment) -> Tensor:
    """Keep, channel by channel, the value that is largest by magnitude, with its sign (CubistMerge).

    Equals go to the survivor. Needs `assignment.members`.
    """
    members, merged = assignment.members, assignment.merged
    assert members is not None, "max_magnitude needs to know the members of each group"
    if merged is None:
        return _largest(values, members)
    dest = assignment.dest.gather(1, merged)
    changed = members.gather(1, dest[..., None].expand(-1, -1, members.shape[-1]))
    return _put(values, assignment, dest, _largest(values, changed))


def by_slot(reduction: Reduction, slots: int) -> Reduction:
    """Make a reduction treat the slots of cells one by one, for one that looks at whole rows (norms).

    Its values are [B, N, slots * C]. Of one slot, it is the reduction itself.
    """
    if slots == 1:
        return reduction

    def reduce(values: Tensor, size: Tensor, assignment: Assignment) -> Tensor:
        def each(index: Tensor) -> Tensor:
            return index.repeat_interleave(slots, dim=0)

        batch, merged, members = len(values), assignment.merged, assignment.members
        by_slots = replace(
            assignment,
            dest=each(assignment.dest),
            survivor=each(assignment.survivor),
            merged=None if merged is None else each(merged),
            members=None if members is None else each(members),
        )
        rows = values.unflatten(2, (slots, -1)).transpose(1, 2).flatten(0, 1)
        reduced = reduction(rows, each(size), by_slots)
        return reduced.unflatten(0, (batch, slots)).transpose(1, 2).flatten(2)

    return reduce


def group_sum(values: Tensor, assignment: Assignment) -> Tensor:
    """Sum values [B, N, C] over the groups of an assignment -> [B, num_out, C]."""
    batch, _, channels = values.shape
    return _add_rows(values.new_zeros(batch, assignment.num_out, channels), assignment.dest, values)


def apply(tokens: Tokens, assignment: Assignment, reduction: Reduction) -> Tokens:
    """Reduce x and the spatial tokens, add up sizes, and follow every patch to its new token.

    The grid is gone afterwards; the inputs are not modified. Raises UnsupportedExporter.
    """
    require_exporter()
    spatial, position = tokens.spatial, tokens.position
    return replace(
        tokens,
        x=reduction(tokens.x, tokens.size, assignment),
        size=group_sum(tokens.size[..., None], assignment)[..., 0],
        source=_follow_patches(tokens, assignment.dest),
        grid=None,
        spatial=None if spatial is None else weighted_mean(spatial, tokens.size, assignment),
        position=None if position is None else position.gather(1, assignment.survivor),
        is_weighted=True,
    )


def drop(tokens: Tokens, assignment: Assignment) -> Tokens:
    """Keep the survivors as they are; the patches of all other tokens are dropped (source -1).

    The grid is gone afterwards; the inputs are not modified. Raises UnsupportedExporter.
    """
    require_exporter()
    survivor = assignment.survivor
    return replace(
        tokens,
        x=take(tokens.x, survivor),
        size=tokens.size.gather(1, survivor),
        source=_follow_patches(tokens, _survivors_only(assignment)),
        grid=None,
        spatial=None if tokens.spatial is None else take(tokens.spatial, survivor),
        position=None if tokens.position is None else tokens.position.gather(1, survivor),
        has_holes=True,
    )


@dataclass(frozen=True)
class _Joins:
    """The tokens that join a group, r of them, and their shares of it: only these groups need work.

    A group of many stands here once for each that joins it; `slot` is the same one of these for all.
    """

    token: Tensor  # [B, r]
    survivor: Tensor  # [B, r]
    dest: Tensor  # [B, r]
    slot: Tensor  # [B, r]
    token_share: Tensor  # [B, r]
    survivor_share: Tensor  # [B, r]


def _joins(size: Tensor, assignment: Assignment) -> _Joins:
    token = assignment.merged
    if token is None:  # unknown: all tokens, with a share of 0 for those that lead their group
        token = torch.arange(size.shape[1], device=size.device).expand_as(size)
    dest = assignment.dest.gather(1, token)
    survivor = assignment.survivor.gather(1, dest)
    share = size / group_sum(size[..., None], assignment)[..., 0].gather(1, assignment.dest)
    joined = share.gather(1, token) * (token != survivor)
    return _Joins(token, survivor, dest, _slots(dest, assignment), joined, share.gather(1, survivor))


def _slots(dest: Tensor, assignment: Assignment) -> Tensor:
    """Pick one entry for each group among dest [B, r], the same for all entries of the group: [B, r]."""
    entry = torch.arange(dest.shape[1], device=dest.device).expand_as(dest)
    # The last write wins; no sum depends on which one it is.
    return torch.zeros_like(assignment.survivor).scatter(1, dest, entry).gather(1, dest)


def _longest(survivors: Tensor, joining: Tensor, joins: _Joins, ord: float) -> Tensor:
    """Return the largest norm of the group of every entry: [B, r]."""
    own, others = (torch.linalg.vector_norm(rows, ord, dim=-1) for rows in (survivors, joining))
    return own.scatter_reduce(1, joins.slot, others, "amax").gather(1, joins.slot)


def _mean(survivors: Tensor, joining: Tensor, joins: _Joins) -> Tensor:
    """Return the weighted mean of the group of every entry: rows [B, r, C]."""
    sums = survivors * joins.survivor_share[..., None]
    return take(_add_rows(sums, joins.slot, joining * joins.token_share[..., None]), joins.slot)


def _largest(values: Tensor, members: Tensor) -> Tensor:
    """Pick the largest magnitude of members [B, M, K] in every channel, the first of equals: [B, M, C]."""
    out = take(values, members[..., 0])
    for other in range(1, members.shape[-1]):
        rival = take(values, members[..., other])
        out = torch.where(rival.abs() > out.abs(), rival, out)
    return out


def _put(values: Tensor, assignment: Assignment, dest: Tensor, rows: Tensor) -> Tensor:
    """Keep the survivors, except for the groups that changed: rows [B, r, C] replace those of dest [B, r].

    A group may be there many times, with the same row each time.
    """
    if rows.requires_grad:  # of equal rows only one may carry the gradient
        once = _slots(dest, assignment) == torch.arange(dest.shape[1], device=dest.device)
        rows = torch.where(once[..., None], rows, rows.detach())
    out = take(values, assignment.survivor)
    out.view(-1, out.shape[2]).index_copy_(0, flat_rows(dest, out.shape[1]), rows.to(out.dtype).flatten(0, 1))
    return out


def _add_rows(out: Tensor, dest: Tensor, values: Tensor) -> Tensor:
    """Add values [B, M, C] to the rows dest [B, M] of out [B, N, C], in place."""
    # Row-wise over the flattened batch: four times as fast on the CPU as a scatter along dim 1.
    out.view(-1, out.shape[2]).index_add_(0, flat_rows(dest, out.shape[1]), values.flatten(0, 1))
    return out


def _survivors_only(assignment: Assignment) -> Tensor:
    """Return the destination of every token that leads its group, -1 for the others."""
    dest = assignment.dest
    index = torch.arange(dest.shape[1], device=dest.device)
    return torch.where(assignment.survivor.gather(1, dest) == index, dest, -1)


def _follow_patches(tokens: Tokens, dest: Tensor) -> Tensor:
    if tokens.source.shape[1] == 0:  # the source is not tracked
        return tokens.source
    if not tokens.has_holes:
        return dest.gather(1, tokens.source)
    return torch.where(tokens.source < 0, -1, dest.gather(1, tokens.source.clamp(min=0)))
