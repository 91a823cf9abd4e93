"""Disjoint seed ranges of RoomQA, and the frozen test split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass

from service.roomqa.arrange import make_scene
from service.roomqa.questions import TYPES, Question, questions
from service.roomqa.render import Frame, render
from service.roomqa.scene import Scene

TRAIN = range(0, 10_000_000)
VALIDATION = range(10_000_000, 10_100_000)
TEST = range(20_000_000, 20_100_000)
PER_SCENE = 4
FROZEN = {
    1000: "9e1c7b3a6a41aa7bc7fee561315914feb0fc5d8c5d80268d0bf2e3442d439c34",
    4000: "69c30b16b72cd0f45b76df76f1aa015b05f924387d0aee556ba0907906d6d20e",
}
"""`digest` of the test split by its number of questions; it must never change."""


@dataclass(frozen=True)
class Example:
    """One scene, its frame and the questions chosen of it."""

    scene: Scene
    frame: Frame
    questions: tuple[Question, ...]


def examples(seeds: range, n_questions: int, size: int = 384) -> Iterator[Example]:
    """Yield scenes in order, four questions each, the rarest types first, until `n_questions` are asked."""
    chosen: Counter[str] = Counter({kind: 0 for kind in TYPES})
    for seed in seeds:
        scene = make_scene(seed)
        frame = render(scene, size)
        offered = {question.type: question for question in questions(scene, frame, seed, len(TYPES))}
        rarest = sorted(offered, key=lambda kind: (chosen[kind], kind))[
            : min(PER_SCENE, n_questions - chosen.total())
        ]
        chosen.update(rarest)
        if rarest:
            yield Example(scene, frame, tuple(offered[kind] for kind in rarest))
        if chosen.total() >= n_questions:
            return


def digest(split: list[Example]) -> str:
    """sha256 over every question, answer and type of a split: what freezes the test set."""
    rows = [[example.scene.seed, [astuple(q) for q in example.questions]] for example in split]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
