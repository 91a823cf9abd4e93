"""Matching of adjacent tokens on a line (CubistMerge, arXiv 2509.21764).

A line is a row or a column of the grid. Matching only computes indices; `tosa.reduction` changes the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.grid import AxisWindows, remaining
from tosa.layout import after_prefix
from tosa.matching import Assignment
from tosa.sorting import argsort


def join_neighbours(similarity: Tensor, windows: AxisWindows) -> Tensor:
    """Return the token of its line that every token joins: itself when it stays, else the one beside it.

    similarity [B, L, n-1]: of each token of a line of n with the next one. Returns int64 [B, L, n].
    In each stretch (length, removed <= length / 2) every second token offers to join the more similar of its
    neighbours, and the `removed` best offers are taken; equals go to the left, then by index.
    """
    targets, start = [], 0
    for length, removed in windows:
        targets.append(start + _join_in_stretch(similarity[..., start : start + length - 1], removed))
        start += length
    return torch.cat(targets, dim=-1)


def line_assignment(target: Tensor, windows: AxisWindows, num_prefix: int, along: str) -> Assignment:
    """Turn targets on lines [B, L, n] into an assignment of all tokens, prefix and row-major order included.

    along: "rows" when the lines are rows of the grid, "columns" when they are columns.
    """
    lines, n = target.shape[1:]
    kept = remaining(windows)
    here = torch.arange(n, device=target.device)
    stays = target == here
    order = argsort((~stays).int())  # those that stay first, both in their order
    survivor, gone = order[..., :kept], order[..., kept:]
    dest = (stays.cumsum(-1) - 1).gather(-1, target)
    # A token that no other joins is listed again, so that every group has three members.
    from_left = here - (F.pad(target[..., :-1], (1, 0), value=-1) == here).long()
    from_right = here + (F.pad(target[..., 1:], (0, 1), value=-1) == here).long()
    members = (survivor, from_left.gather(-1, survivor), from_right.gather(-1, survivor))

    def all_tokens(place: Tensor, length: int) -> Tensor:
        return after_prefix(_row_major(place, length, along), num_prefix, target.shape[0])

    return Assignment(
        dest=all_tokens(dest, kept),
        num_out=num_prefix + lines * kept,
        survivor=all_tokens(survivor, n),
        merged=num_prefix + _row_major(gone, n, along),
        members=torch.stack([all_tokens(member, n) for member in members], dim=-1),
    )


def _row_major(place: Tensor, length: int, along: str) -> Tensor:
    """Number places on lines [B, L, m] through the grid, whose lines are `length` long: [B, L * m]."""
    line = torch.arange(place.shape[1], device=place.device)[:, None]
    if along == "rows":
        return (line * length + place).flatten(1)
    return (place * place.shape[1] + line).mT.flatten(1)


def _join_in_stretch(similarity: Tensor, removed: int) -> Tensor:
    batch, lines, edges = similarity.shape
    target = torch.arange(edges + 1, device=similarity.device).repeat(batch, lines, 1)
    if removed == 0:
        return target
    left_edge, right_edge = similarity[..., 0::2], similarity[..., 1::2]
    right_edge = F.pad(right_edge, (0, left_edge.shape[-1] - right_edge.shape[-1]), value=-torch.inf)
    best = torch.maximum(left_edge, right_edge)
    taken = argsort(best, descending=True)[..., :removed]
    side = torch.where(right_edge > left_edge, 1, -1)
    shift = torch.zeros_like(side).scatter(-1, taken, side.gather(-1, taken))
    target[..., 1::2] += shift
    return target
