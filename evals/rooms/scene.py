"""RoomQA scenes: a seeded room with one to eight things in it. Knows geometry and colours, not pixels.

Camera frame: x to the right, z forward, in metres, the camera at x = z = 0. Heights go up from the floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CAMERA_HEIGHT_M = 1.2
FOCAL = 0.65  # focal length over image size: 75 degrees of view, both ways
HORIZON = 0.40  # row of the horizon over image size: the camera sees more floor than ceiling

SHAPES = ("cube", "ball", "cylinder", "cone", "pyramid", "capsule")
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
HEIGHT_PER_WIDTH = {"cube": 1.0, "ball": 1.0, "cylinder": 1.2, "cone": 1.25, "pyramid": 1.1, "capsule": 1.9}
FLAT_TOPPED = ("cube", "cylinder")
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
        return self.width / 2 * (math.sqrt(2) if self.shape in ("cube", "pyramid") else 1.0)

    @property
    def size(self) -> float:
        """Cube root of the volume of its bounding box, in metres: what "larger" compares."""
        return (self.width**2 * self.height) ** (1 / 3)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


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


@dataclass(frozen=True)
class Scene:
    seed: int
    room: Room
    things: tuple[Thing, ...]


def make_scene(seed: int) -> Scene:
    """Build the scene of `seed`; the same seed gives the same scene."""
    rng = np.random.default_rng((seed, 1))
    room = _room(rng)
    things: list[Thing] = []
    for _ in range(int(rng.integers(1, 9))):
        thing = _place(rng, room, things)
        if thing is not None:
            things.append(thing)
    return Scene(seed, room, tuple(things))


def _room(rng: np.random.Generator) -> Room:
    far_rgb = _pick(rng, MUTED)
    if rng.random() < 0.25:  # a wall in the colour of things: only depth tells them apart
        far_rgb = _pick(rng, tuple(COLOURS.values()))
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(-0.9, -0.2)])
    light /= np.linalg.norm(light)
    return Room(
        left=rng.uniform(1.6, 3.5),
        right=rng.uniform(1.6, 3.5),
        far=rng.uniform(4.5, 7.0),
        ceiling=rng.uniform(2.3, 3.0),
        side_rgb=_pick(rng, MUTED),
        far_rgb=far_rgb,
        floor_rgb=_pick(rng, MUTED),
        light=(float(light[0]), float(light[1]), float(light[2])),
    )


def _place(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing | None:
    """Propose places until one is free; None when the room is too full."""
    for _ in range(12):
        thing = _propose(rng, room, things)
        if thing is not None and _fits(thing, room, things):
            return thing
    return None


def _propose(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing | None:
    shape, colour = _pick(rng, SHAPES), _pick(rng, tuple(COLOURS))
    width = float(rng.uniform(0.35, 0.85)) * (0.75 if shape == "capsule" else 1.0)
    yaw = float(rng.uniform(0, math.pi / 2))
    kind = rng.random()
    if things and kind < 0.28:
        return _on_top(rng, Thing(shape, colour, width, 0.0, 0.0, yaw=yaw), things)
    if things and kind < 0.46:  # behind another, in its colour
        front = things[int(rng.integers(len(things)))]
        z = front.z + float(rng.uniform(0.5, 1.6))
        x = front.x * z / front.z + float(rng.uniform(-0.4, 0.4))
        return Thing(shape, front.colour, width, x, z, yaw=yaw)
    if kind < 0.59:  # in the way, or nearly
        return Thing(
            shape, colour, width, float(rng.uniform(-0.7, 0.7)), float(rng.uniform(1.2, 2.2)), yaw=yaw
        )
    z = float(rng.uniform(NEAREST_M, min(FARTHEST_M, room.far - 0.5)))
    return Thing(shape, colour, width, float(rng.uniform(-0.68, 0.68)) * z, z, yaw=yaw)


def _on_top(rng: np.random.Generator, thing: Thing, things: list[Thing]) -> Thing | None:
    below = things[int(rng.integers(len(things)))]
    if below.shape not in FLAT_TOPPED or below.base > 0 or below.width < 0.45:
        return None
    width = min(thing.width, 0.9 * below.width)
    return Thing(thing.shape, thing.colour, width, below.x, below.z, below.top, thing.yaw)


def _fits(thing: Thing, room: Room, things: list[Thing]) -> bool:
    if not (-room.left + thing.radius < thing.x < room.right - thing.radius):
        return False
    if (
        not (0.75 + thing.radius < thing.z < min(FARTHEST_M, room.far - thing.radius))
        or thing.top > room.ceiling
    ):
        return False
    return all(_apart(thing, other) for other in things)


def _apart(a: Thing, b: Thing) -> bool:
    if math.hypot(a.x - b.x, a.z - b.z) > a.radius + b.radius + 0.03:
        return True
    return a.base >= b.top or b.base >= a.top


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
