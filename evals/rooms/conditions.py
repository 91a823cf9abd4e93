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
    "CONDITIONS",
    "STRENGTHS",
    "Condition",
    "parse_condition",
    "spoil",
    "spoiled_split",
]

ALL_CONDITIONS = tuple(Condition(kind, strength) for kind in CONDITIONS for strength in STRENGTHS)


def spoiled_split(split: Sequence[Example], condition: Condition | None) -> list[Example]:
    """Spoil the picture of every example, each by the seed of its scene; None leaves them as they are."""
    if condition is None:
        return list(split)
    return [_spoiled(example, condition) for example in split]


def _spoiled(example: Example, condition: Condition) -> Example:
    frame = example.frame
    rgb = spoil(frame.rgb, condition, example.scene.seed, frame.depth)
    return replace(example, frame=replace(frame, rgb=rgb))
