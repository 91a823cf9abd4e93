"""The frozen questions under bad conditions: the same scenes and questions, a spoiled picture.

`spoil` does the same to any picture: spoil(rgb, Condition("dark", 2), seed). Depth stays what it was, as an
active camera measures it; that of a stereo pair is a source of its own (`evals.rooms.depth_sources`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evals.rooms.splits import Example
from service.roomqa.condition import CONDITIONS, STRENGTHS, Condition, parse_condition
from service.roomqa.spoil import spoil

__all__ = [
    "ALL_CONDITIONS",
    "CLEAN",
    "CONDITIONS",
    "STRENGTHS",
    "Condition",
    "condition_of",
    "label_of",
    "parse_condition",
    "spoil",
    "spoiled_split",
]

CLEAN = "clean"
ALL_CONDITIONS = tuple(Condition(kind, strength) for kind in CONDITIONS for strength in STRENGTHS)


def condition_of(label: str) -> Condition | None:
    """Read "clean" (None) or a condition. Raises ValueError."""
    return None if label == CLEAN else parse_condition(label)


def label_of(condition: Condition | None) -> str:
    """Return what `condition_of` reads."""
    return CLEAN if condition is None else condition.label


def spoiled_split(split: Sequence[Example], condition: Condition | None) -> list[Example]:
    """Spoil the picture of every example, each by the seed of its scene; None leaves them as they are."""
    if condition is None:
        return list(split)
    return [_spoiled(example, condition) for example in split]


def _spoiled(example: Example, condition: Condition) -> Example:
    frame = example.frame
    rgb = spoil(frame.rgb, condition, example.scene.seed, frame.depth)
    return replace(example, frame=replace(frame, rgb=rgb))
