"""Names of what spoils a picture, and how much: `service.roomqa.spoil` does it."""

from __future__ import annotations

from dataclasses import dataclass

CONDITIONS = ("dark", "noise", "motion", "defocus", "glare", "fog", "jpeg", "cast", "dead")
"""Kinds of conditions; their order is part of what is frozen."""
STRENGTHS = (1, 2, 3)
CAMERAS = ("exact", "active", "stereo")
"""How depth is measured: without error, by a camera with its own light, or by two cameras that need light."""


@dataclass(frozen=True)
class Condition:
    """A kind of CONDITIONS and its strength, 1 to 3. Raises ValueError for another."""

    kind: str
    strength: int = 2

    def __post_init__(self) -> None:
        if self.kind not in CONDITIONS:
            raise ValueError(f"unknown condition {self.kind!r}; known: {', '.join(CONDITIONS)}")
        if self.strength not in STRENGTHS:
            raise ValueError(f"strength must be 1, 2 or 3, got {self.strength}")

    @property
    def label(self) -> str:
        """Return "kind:strength", which `parse_condition` reads."""
        return f"{self.kind}:{self.strength}"


def parse_condition(label: str) -> Condition:
    """Read "kind" (strength 2) or "kind:strength". Raises ValueError."""
    kind, _, strength = label.partition(":")
    if strength and strength not in map(str, STRENGTHS):
        raise ValueError(f"strength must be 1, 2 or 3, got {strength!r}")
    return Condition(kind, int(strength or 2))
