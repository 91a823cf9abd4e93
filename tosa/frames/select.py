"""Choose the tokens of an episode within its budget, with separators, quotas, and one order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.frames.alike import merge_alike
from tosa.frames.cover import cover
from tosa.frames.placed import PlacedTokens
from tosa.frames.plain import diverse, still
from tosa.frames.rule import FrameRule
from tosa.frames.voxel import grouped_means, voxel_groups

TOKENS_PER_SEPARATOR = 8
"""Separators take at most a ninth of the budget; beyond, several frames share one."""


class BudgetTooSmall(ValueError):
    """Nothing may be dropped, and there are more tokens than the budget. needed: how many there are."""

    def __init__(self, needed: int, budget: int) -> None:
        super().__init__(needed, budget)
        self.needed, self.budget = needed, budget

    def __str__(self) -> str:
        return f"{self.needed} visual tokens do not fit a budget of {self.budget}, and none may be dropped"


@dataclass(frozen=True, eq=False)
class Kept:
    """Hold the T tokens that are left, in the order of frames and, within one, of its tokens.

    features [T, D]; leader [T] int64: the token of the input that each one is, or that leads its group. frame
    [T] int64. runs: tokens of each run; a separator follows each of them, where the rule has separators.
    part_of [M] int64: the one among the T that each token of the input is a part of, -1 if it was dropped.
    """

    features: Tensor
    leader: Tensor
    frame: Tensor
    runs: tuple[int, ...]
    separates: bool
    part_of: Tensor

    @property
    def visual_tokens(self) -> int:
        """Return how many visual tokens the language model reads, separators included."""
        return len(self.leader) + (len(self.runs) if self.separates else 0)


def select_tokens(tokens: PlacedTokens, rule: FrameRule, is_stale: Tensor | None = None) -> Kept:
    """Choose or merge tokens by the rule: exactly its budget, separators counted, or all if they are fewer.

    is_stale [M]: of things that have gone, which are kept last. Deterministic. Raises BudgetTooSmall.
    """
    frames = int(tokens.frame.unique().numel())
    everything = len(tokens) + (frames if rule.separates else 0)
    if rule.budget is None or everything <= rule.budget or not len(tokens):
        every = torch.arange(len(tokens))
        return _in_runs(tokens, _Chosen(every, tokens.features, every), frames, rule)
    if rule.method == "none":
        raise BudgetTooSmall(everything, rule.budget)
    if not rule.separates:
        return _in_runs(tokens, _chosen(tokens, rule.budget, rule, is_stale), frames, rule)
    separators = max(1, min(frames, rule.budget // (TOKENS_PER_SEPARATOR + 1)), rule.budget - len(tokens))
    while True:
        chosen = _chosen(tokens, rule.budget - separators, rule, is_stale)
        held = int(tokens.frame[chosen.leader].unique().numel())
        if held >= separators or separators == 1:
            return _in_runs(tokens, chosen, separators, rule)
        separators = max(1, held)  # fewer separators leave room for more tokens, and frames


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Hold leaders [T] int64, their features [T, D], and the leader of every token [M] int64, -1: dropped."""

    leader: Tensor
    features: Tensor
    led_by: Tensor


def _chosen(tokens: PlacedTokens, budget: int, rule: FrameRule, is_stale: Tensor | None) -> _Chosen:
    """Choose `budget` tokens, in order."""
    if rule.method == "diverse":
        return _of(tokens, diverse(tokens.features, budget))
    if rule.method == "still":
        return _of(tokens, still(tokens.change, budget))
    placed = tokens.has_place.nonzero().flatten()
    unplaced = (~tokens.has_place).nonzero().flatten()
    quota = _quota(len(placed), len(unplaced), budget, rule.unplaced_share)
    without = unplaced[_even(len(unplaced), quota)]
    found = _METHODS[rule.method](tokens, placed, budget - quota, rule, is_stale)
    order = torch.sort(torch.cat([found.leader, without])).indices
    both = torch.cat([found.features, tokens.features[without].to(found.features.dtype)])
    led_by = found.led_by.index_put((without,), without)
    return _Chosen(torch.cat([found.leader, without])[order], both[order], led_by)


def _quota(placed: int, unplaced: int, budget: int, most_share: float) -> int:
    """Return how many tokens without a place are kept: their share, bounded, and what is left over."""
    share = min(unplaced / (placed + unplaced), most_share)
    return min(unplaced, max(round(budget * share), budget - placed))


def _even(number: int, kept: int) -> Tensor:
    """Return the indices of `kept` out of `number`, evenly spaced."""
    return (2 * torch.arange(kept) + 1) * number // max(1, 2 * kept)


def _of(tokens: PlacedTokens, index: Tensor) -> _Chosen:
    return _Chosen(index, tokens.features[index], _led(tokens, index, index))


def _led(tokens: PlacedTokens, index: Tensor, leader: Tensor) -> Tensor:
    """Return who leads every token, if `leader` leads those of `index`, and the others are dropped."""
    return torch.full((len(tokens),), -1).index_put((index,), leader)


def _cover(
    tokens: PlacedTokens, placed: Tensor, budget: int, rule: FrameRule, is_stale: Tensor | None
) -> _Chosen:
    if is_stale is not None and is_stale[placed].any():
        current, gone = placed[~is_stale[placed]], placed[is_stale[placed]]
        more = gone[_even(len(gone), max(0, min(len(gone), budget - len(current))))]
        placed = torch.sort(torch.cat([current, more])).values
    return _of(tokens, placed[cover(tokens.points[placed], budget)])


def _alike(
    tokens: PlacedTokens, placed: Tensor, budget: int, rule: FrameRule, is_stale: Tensor | None
) -> _Chosen:
    groups = merge_alike(
        tokens.points[placed], tokens.features[placed], tokens.size[placed], budget, rule.tau, rule.average
    )
    leaders = groups.leaders
    leaders = leaders[cover(tokens.points[placed[leaders]], budget)]
    stays = torch.isin(groups.dest, leaders)
    led_by = _led(tokens, placed[stays], placed[groups.dest[stays]])
    return _Chosen(placed[leaders], groups.features[leaders].to(tokens.features.dtype), led_by)


def _voxel(
    tokens: PlacedTokens, placed: Tensor, budget: int, rule: FrameRule, is_stale: Tensor | None
) -> _Chosen:
    if budget <= 0 or not len(placed):
        return _of(tokens, placed[:0])
    group = voxel_groups(tokens.points[placed], budget)
    means = grouped_means(tokens.features[placed], tokens.size[placed], group)
    leader = torch.full((len(means),), len(placed)).scatter_reduce(
        0, group, torch.arange(len(placed)), "amin"
    )
    led_by = _led(tokens, placed, placed[leader[group]])
    return _Chosen(placed[leader], means.to(tokens.features.dtype), led_by)


_Method = Callable[[PlacedTokens, Tensor, int, FrameRule, Tensor | None], _Chosen]
_METHODS: dict[str, _Method] = {"seen": _cover, "cover": _cover, "alike": _alike, "voxel": _voxel}


def _in_runs(tokens: PlacedTokens, chosen: _Chosen, runs: int, rule: FrameRule) -> Kept:
    """Divide tokens into runs that end where a frame does, at most one for each frame, about equally."""
    frame = tokens.frame[chosen.leader]
    counts = torch.unique_consecutive(frame, return_counts=True)[1].tolist()
    place = torch.full((len(tokens) + 1,), -1)  # the last one for what was dropped
    place[chosen.leader] = torch.arange(len(chosen.leader))
    part_of = place[chosen.led_by]
    return Kept(chosen.features, chosen.leader, frame, tuple(_joined(counts, runs)), rule.separates, part_of)


def _joined(counts: list[int], runs: int) -> list[int]:
    """Join neighbouring counts until `runs` sums are left, each about the same share of all."""
    joined, total, done = list[int](), sum(counts), 0
    for at, count in enumerate(counts):
        left, wanted = len(counts) - at, runs - len(joined)
        is_new = not joined or left <= wanted or done * runs >= total * len(joined)
        if is_new and len(joined) < runs:
            joined.append(count)
        else:
            joined[-1] += count
        done += count
    return joined
