"""Disjoint seed ranges of walks, and the frozen test split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from service.roomqa.render import Frame
from service.roomqa.walks.arrange import make_walk
from service.roomqa.walks.questions import WALK_TYPES, WalkQuestion, sights, walk_questions
from service.roomqa.walks.render import render_view
from service.roomqa.walks.world import Walk

TRAIN_WALKS = range(40_000_000, 50_000_000)
VALIDATION_WALKS = range(50_000_000, 50_100_000)
TEST_WALKS = range(60_000_000, 60_100_000)
PER_WALK = 6
OFFERED = 18
FROZEN_WALKS = {
    2: "3f7b3f7ce35c327e14014ca79f3340bc5121ce6eb90c5432ea00d5820ce81fdd",
    64: "2f42ce7e9591c95d7560ad0398585e888fe2c0698114b6e64f878d3d7ff2511e",
}
"""`walk_digest` of the test split by its number of walks; it must never change."""


@dataclass(frozen=True)
class WalkExample:
    """One walk, all its frames, and the questions chosen of it."""

    walk: Walk
    frames: tuple[Frame, ...]
    questions: tuple[WalkQuestion, ...]


def walk_examples(seeds: range, walks: int, size: int = 384, moves: bool = False) -> Iterator[WalkExample]:
    """Yield walks in order, up to six questions each, of the types that were asked least so far."""
    chosen: Counter[str] = Counter({kind: 0 for kind in WALK_TYPES})
    for seed in seeds[:walks]:
        walk = make_walk(seed, moves)
        frames = tuple(render_view(walk, at, size) for at in range(len(walk.cameras)))
        asked: list[WalkQuestion] = []
        offered = walk_questions(sights(walk, frames), seed, OFFERED)
        while offered and len(asked) < PER_WALK:
            rarest = min(offered, key=lambda one: (chosen[one.type], offered.index(one)))
            offered.remove(rarest)
            asked.append(rarest)
            chosen[rarest.type] += 1
        yield WalkExample(walk, frames, tuple(asked))


def walk_digest(split: Sequence[WalkExample]) -> str:
    """sha256 over every question, answer and type of a split: what freezes the test set."""
    rows = [[example.walk.seed, [astuple(one) for one in example.questions]] for example in split]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
