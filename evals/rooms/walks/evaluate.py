"""Measure one setting on all walks: what is kept, how long the choice takes, and the answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.walks.coverage import Truth, coverage, jaccard
from evals.rooms.walks.select import Chosen, Key, choose
from evals.rooms.walks.settings import Setting
from evals.rooms.walks.splits import WalkExample
from evals.rooms.walks.towers import Towers
from vlm import Vlm

TOGETHER = 8
MAX_NEW_TOKENS = 4


@dataclass
class Measured:
    """Hold lists with an entry for each walk. alike: Jaccard index to the tokens kept by true geometry."""

    things: list[float] = field(default_factory=list)
    surface: list[float] = field(default_factory=list)
    twice: list[float] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    select_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)


def asked_of(example: WalkExample, words: str) -> list[str]:
    """Return the questions that are asked: those of walks, or "plain" ones in the words of single scenes."""
    if words == "walks":
        return [one.question for one in example.questions]
    return [one.plain for one in example.questions if one.plain is not None]


def measure(
    vlm: Vlm,
    towers: Towers,
    split: Sequence[WalkExample],
    truths: Sequence[Truth],
    setting: Setting,
    words: str,
    keys: dict[tuple[int, Setting], Key],
) -> Measured:
    """Measure a setting; a walk whose questions have no words that the model knows is only looked at.

    keys: the tokens that settings keep of each walk, remembered for the controls that come later.
    """
    measured = Measured()
    for first in range(0, len(split), TOGETHER):
        batch = range(first, min(first + TOGETHER, len(split)))
        chosen = []
        for at in batch:
            one = _chosen(vlm, towers, split, at, setting, measured, keys)
            found = coverage(truths[at], one, setting.every)
            measured.things.append(round(found.things, 4))
            measured.surface.append(round(found.surface, 4))
            measured.twice.append(round(found.twice, 4))
            measured.tokens.append(len(one.visual))
            chosen.append(one)
        _answer(vlm, chosen, [asked_of(split[at], words) for at in batch], measured)
    return measured


def _chosen(
    vlm: Vlm,
    towers: Towers,
    split: Sequence[WalkExample],
    at: int,
    setting: Setting,
    measured: Measured,
    keys: dict[tuple[int, Setting], Key],
) -> Chosen:
    grid = vlm.shape.grid[0]
    other = split[(at + 1) % len(split)]
    began = time.perf_counter()
    one = choose(towers, split[at], other, setting, grid)
    spent = time.perf_counter() - began
    measured.select_ms.append(round(1000 * one.seconds, 2))
    measured.encode_ms.append(round(1000 * (spent - one.seconds), 2))
    keys[at, setting] = one.key
    if setting.geometry != "true":
        true = replace(setting, geometry="true")
        if (at, true) not in keys:
            keys[at, true] = choose(towers, split[at], other, true, grid).key
        measured.alike.append(round(jaccard(one.key, keys[at, true]), 4))
    return one


def _answer(
    vlm: Vlm, chosen: Sequence[Chosen], questions: Sequence[Sequence[str]], measured: Measured
) -> None:
    """Answer about walks with equally many tokens together, and time it for each walk."""
    answers: list[list[str]] = [[] for _ in chosen]
    spent = [0.0] * len(chosen)
    lengths = {len(one.visual) for one, own in zip(chosen, questions, strict=True) if own}
    for length in sorted(lengths):
        at = [i for i, one in enumerate(chosen) if len(one.visual) == length and questions[i]]
        visual = torch.stack([chosen[i].visual for i in at])[:, None].to(vlm.device, vlm.dtype)
        began = time.perf_counter()
        found = answer_frames(vlm, visual, [questions[i] for i in at], MAX_NEW_TOKENS)
        for i, own in zip(at, found, strict=True):
            answers[i], spent[i] = own, (time.perf_counter() - began) / len(at)
    measured.answers += answers
    measured.answer_ms += [round(1000 * one, 2) for one in spent]


def encode_ms(towers: Towers, example: WalkExample, inside: str) -> float:
    """Time one frame through the tower, the median over a walk, in milliseconds."""
    spent = []
    for at in range(len(example.frames)):
        began = time.perf_counter()
        towers.encode(example, at, towers.inside(inside))
        spent.append(time.perf_counter() - began)
    return round(1000 * statistics.median(spent), 2)
