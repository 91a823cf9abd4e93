"""Data of a RoomQA scene: a room, its surfaces and the things in it.

Camera frame: x to the right, z forward, in metres, the camera at x = z = 0. Heights go up from the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CAMERA_HEIGHT_M = 1.2
FOCAL = 0.65  # focal length over image size: 75 degrees of view, both ways
HORIZON = 0.40  # row of the horizon over image size: the camera sees more floor than ceiling

SOLIDS = ("cube", "ball", "cylinder", "cone", "pyramid", "capsule")
FURNITURE = ("table", "chair", "sofa", "shelf", "lamp", "door")
SHAPES = SOLIDS + FURNITURE
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 32, 34),
    "orange": (240, 130, 20),
    "yellow": (238, 214, 40),
    "green": (44, 158, 52),
    "cyan": (52, 196, 205),
    "blue": (36, 72, 205),
    "purple": (134, 44, 168),
    "black": (38, 38, 42),
}
MUTED = ((206, 200, 188), (178, 186, 192), (196, 182, 160), (158, 150, 140), (222, 218, 210), (150, 162, 150))
PATTERNS = ("plain", "checks", "stripes", "bricks")
HEIGHT_PER_WIDTH = {
    "cube": 1.0,
    "ball": 1.0,
    "cylinder": 1.2,
    "cone": 1.25,
    "pyramid": 1.1,
    "capsule": 1.9,
    "table": 0.72,
    "chair": 1.6,
    "sofa": 0.75,
    "shelf": 1.8,
    "lamp": 2.6,
    "door": 2.3,
}
SIZE_OF_FURNITURE = {
    "table": (0.7, 1.1),
    "chair": (0.4, 0.6),
    "sofa": (0.8, 1.2),
    "shelf": (0.5, 0.8),
    "lamp": (0.35, 0.55),
    "door": (0.75, 0.95),
}  # widths in metres
SQUARE = ("cube", "pyramid", "table", "chair", "sofa", "shelf")  # footprints
FLAT_TOPPED = ("cube", "cylinder", "table")
DOOR_THICKNESS_M = 0.08
NEAREST_M, FARTHEST_M = 1.2, 5.6


@dataclass(frozen=True)
class Thing:
    """One object; `x`, `z` place its vertical axis, `base` is the height of its foot, `yaw` in radians."""

    shape: str
    colour: str
    width: float
    x: float
    z: float
    base: float = 0.0
    yaw: float = 0.0

    @property
    def height(self) -> float:
        return self.width * HEIGHT_PER_WIDTH[self.shape]

    @property
    def middle(self) -> float:
        """Height of the centre above the floor, in metres."""
        return self.base + self.height / 2

    @property
    def top(self) -> float:
        return self.base + self.height

    @property
    def radius(self) -> float:
        """Radius of the circle round its footprint, in metres."""
        return self.width / 2 * (math.sqrt(2) if self.shape in SQUARE else 1.0)

    @property
    def size(self) -> float:
        """Cube root of the volume of its bounding box, in metres: what "larger" compares."""
        return (self.width**2 * self.height) ** (1 / 3)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Pattern:
    """How a surface is painted: a kind of PATTERNS, its period in metres, how much darker dark parts are."""

    kind: str = "plain"
    period: float = 0.5
    contrast: float = 0.0


@dataclass(frozen=True)
class Room:
    """The box the camera stands in: walls at x = -left, x = right and z = far, in metres; colours are RGB."""

    left: float
    right: float
    far: float
    ceiling: float
    side_rgb: tuple[int, int, int]
    far_rgb: tuple[int, int, int]
    floor_rgb: tuple[int, int, int]
    light: tuple[float, float, float]
    floor: Pattern = Pattern()
    walls: Pattern = Pattern()


@dataclass(frozen=True)
class Scene:
    """A room, its things, the row of the horizon over the image size, and whether things throw shadows."""

    seed: int
    room: Room
    things: tuple[Thing, ...]
    horizon: float = HORIZON
    has_shadows: bool = False
