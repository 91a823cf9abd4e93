"""What is compared on walks: frames, budgets, methods across frames, merging inside them, and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from evals.rooms.walks.geometry import GEOMETRIES
from service.roomqa.walks.world import EIGHT, FRAMES

FRAME_COUNTS = (8, 16)
BUDGETS = (36, 72, 144, 288, 576)
INSIDE = ("none", "tosa 0.25")
"""Merging inside frames before merging across them."""
PER_FRAME = ("tosa per frame", "tome per frame", "tosa, fewer frames")
ACROSS = ("random", "diverse", "still", "seen", "cover", "alike", "voxel")
GEOMETRIC = ("seen", "cover", "alike", "voxel")
CONTROLLED = ("seen", "cover", "alike")
CONTROL_BUDGET = 144
FEWER = 4
"""`fewer frames` shows one of so many."""
_LEAST = 2
"""Visual tokens of a frame that is merged alone: one, and its separator."""


@dataclass(frozen=True)
class Setting:
    """One way to spend a budget of visual tokens, separators counted, on a number of frames."""

    method: str
    frames: int
    budget: int
    inside: str = "none"
    geometry: str = "true"

    @property
    def name(self) -> str:
        """Return a readable name, unique and stable from run to run."""
        within = "" if self.inside == "none" else f"{self.inside} + "
        wrong = "" if self.geometry == "true" else f", {self.geometry}"
        return f"{within}{self.method}, {self.budget} tokens of {self.frames} frames{wrong}"

    @property
    def alone(self) -> str:
        """Return the method inside frames of a setting that merges each by itself, such as PER_FRAME has."""
        return self.method.split()[0].strip(",")

    @property
    def every(self) -> tuple[int, ...]:
        """Return the frames that stand for the walk."""
        return tuple(range(FRAMES)) if self.frames == FRAMES else EIGHT

    @property
    def shown(self) -> tuple[int, ...]:
        """Return which frames of the walk are encoded."""
        every = self.every
        if self.method != "tosa, fewer frames":
            return every
        number = len(every) // FEWER
        return tuple(every[round(at * (len(every) - 1) / (number - 1))] for at in range(number))


def settings(
    frame_counts: Sequence[int] = FRAME_COUNTS,
    budgets: Sequence[int] = BUDGETS,
    controls: bool = True,
) -> list[Setting]:
    """List all settings; methods that merge each frame alone only where every frame gets a token."""
    found = []
    for frames, budget in product(frame_counts, budgets):
        alone = [Setting(method, frames, budget) for method in PER_FRAME]
        found += [one for one in alone if budget // len(one.shown) >= _LEAST]
        found += [Setting(method, frames, budget) for method in ACROSS]
        found += [Setting(method, frames, budget, INSIDE[1]) for method in ("diverse", *CONTROLLED)]
    if controls:
        wrong = [name for name in GEOMETRIES if name != "true"]
        found += [
            Setting(method, frame_counts[0], CONTROL_BUDGET, geometry=name)
            for method, name in product(CONTROLLED, wrong)
        ]
    return found
