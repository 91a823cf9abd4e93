"""The visual tokens of a walk under a setting, and what was kept: by the code that the service runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from evals.rooms.walks.geometry import GEOMETRIES, Posed, frame_tokens, posed
from evals.rooms.walks.settings import PER_FRAME, Setting
from evals.rooms.walks.splits import WalkExample
from evals.rooms.walks.towers import Towers
from service.roomqa.walks.world import SECONDS_APART
from tosa.frames import EpisodeMemory, FrameRule, FrameTokens, Kept, MergeFrames, select_tokens

Key = frozenset[tuple[int, int]]
"""Frames of a walk and their tokens."""
METHODS: tuple[MergeFrames, ...] = get_args(MergeFrames)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Hold what the language model reads of a walk, [T, D], separators among it, and where it is from.

    frame, token [n] int64: the frame of the walk and its token, of each token that is no separator. sources:
    the token of each patch, of every frame shown. seconds: that the selection took, places included.
    """

    visual: Tensor
    frame: Tensor
    token: Tensor
    shown: tuple[int, ...]
    sources: tuple[Tensor, ...]
    seconds: float

    @property
    def key(self) -> Key:
        """Return the kept tokens."""
        return frozenset(zip(self.frame.tolist(), self.token.tolist(), strict=True))


def choose(towers: Towers, example: WalkExample, other: WalkExample, setting: Setting, grid: int) -> Chosen:
    """Return the tokens of a walk. other: the walk whose poses a control uses."""
    if setting.method in PER_FRAME:
        return _alone(towers, example, setting)
    encoded = towers.walk(example, setting.shown, setting.inside)
    given = GEOMETRIES[setting.geometry](
        posed(example, setting.shown), posed(other, setting.shown), example.walk.seed
    )
    began = time.perf_counter()
    memory, kept = _merged(_placed(encoded, given, setting.shown, grid), setting, example.walk.seed)
    seconds = time.perf_counter() - began
    tokens = memory.placed()
    shown = torch.tensor(setting.shown)
    return Chosen(
        _with_separators(kept, encoded[0][0][-1:]),
        shown[tokens.frame[kept.leader]],
        tokens.token[kept.leader],
        setting.shown,
        tuple(source for _, source in encoded),
        seconds,
    )


def _placed(
    encoded: Sequence[tuple[Tensor, Tensor]], given: Posed, shown: Sequence[int], grid: int
) -> list[FrameTokens]:
    return [
        frame_tokens(features[:-1], source, depth, pose, at * SECONDS_APART, grid)
        for (features, source), depth, pose, at in zip(encoded, given.depth, given.poses, shown, strict=True)
    ]


def _merged(frames: Sequence[FrameTokens], setting: Setting, seed: int) -> tuple[EpisodeMemory, Kept]:
    """Merge across frames; random tokens are chosen as `still` does, by numbers that were drawn."""
    if setting.method == "random":
        rule = FrameRule("still", setting.budget)
    else:
        rule = FrameRule(next(one for one in METHODS if one == setting.method), setting.budget)
    memory = EpisodeMemory(rule)
    for frame in frames:
        memory.push(frame)
    if setting.method == "random":
        drawn = torch.rand(memory.tokens, generator=torch.Generator().manual_seed(seed))
        return memory, select_tokens(replace(memory.placed(), change=drawn), rule)
    kept = memory.select()
    assert kept is not None, "frames have come"
    return memory, kept


def _with_separators(kept: Kept, separator: Tensor) -> Tensor:
    if not kept.separates:
        return kept.features
    runs = torch.split(kept.features, list(kept.runs))
    return torch.cat([part for run in runs for part in (run, separator.to(run.dtype))])


def _alone(towers: Towers, example: WalkExample, setting: Setting) -> Chosen:
    """Merge each frame by itself; together they have exactly the budget."""
    shown = setting.shown
    bounds = [at * setting.budget // len(shown) for at in range(len(shown) + 1)]
    visual, frame, token, sources = [], [], [], []
    for at, low, high in zip(shown, bounds, bounds[1:], strict=False):
        features, source = towers.encode(example, at, towers.plan(setting.alone, high - low - 1))
        visual.append(features)
        frame.append(torch.full((high - low - 1,), at))
        token.append(torch.arange(high - low - 1))
        sources.append(source)
    return Chosen(torch.cat(visual), torch.cat(frame), torch.cat(token), shown, tuple(sources), 0.0)
