"""Build RoomQA scenes by seed: where things stand in a room.

Two worlds: `make_plain_scene`, bare rooms with simple solids, where training begins, and `make_scene`, with
furniture, patterns, shadows and sets of equal things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from service.roomqa.scene import (
    COLOURS,
    DOOR_THICKNESS_M,
    FARTHEST_M,
    FLAT_TOPPED,
    FURNITURE,
    MUTED,
    NEAREST_M,
    PATTERNS,
    SIZE_OF_FURNITURE,
    SOLIDS,
    Pattern,
    Room,
    Scene,
    Thing,
)

T = TypeVar("T")
Proposer = Callable[[np.random.Generator, Room, list[Thing]], Thing | None]


def make_plain_scene(seed: int) -> Scene:
    """Build the bare scene of `seed`: solids only, plain surfaces, no shadows, a level camera."""
    rng = np.random.default_rng((seed, 1))
    room = make_room(rng)
    things: list[Thing] = []
    for _ in range(int(rng.integers(1, 9))):
        _add(things, _place(rng, room, things, _propose))
    return Scene(seed, room, tuple(things))


def make_scene(seed: int) -> Scene:
    """Build the furnished scene of `seed`; the same seed gives the same scene."""
    rng = np.random.default_rng((seed, 3))
    room = replace(make_room(rng), floor=make_pattern(rng, 0.35), walls=make_pattern(rng, 0.5))
    things: list[Thing] = []
    if rng.random() < 0.3:
        _add(things, _place(rng, room, things, _propose_door))
    for _ in range(int(rng.integers(1, 6))):
        _add(things, _place(rng, room, things, _propose_any))
    if things and rng.random() < 0.5:
        _repeat(rng, room, things)
    return Scene(seed, room, tuple(things), has_shadows=True)


def _add(things: list[Thing], thing: Thing | None) -> None:
    if thing is not None:
        things.append(thing)


def _repeat(rng: np.random.Generator, room: Room, things: list[Thing]) -> None:
    """Add one to three copies of one of the things, half of them in line behind it."""
    model = things[int(rng.integers(len(things)))]
    if model.shape == "door" or model.base > 0:
        return

    def propose(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing:
        if rng.random() < 0.5:
            return _behind(rng, model, model)
        z = float(rng.uniform(NEAREST_M, min(FARTHEST_M, room.far - 0.5)))
        return replace(model, x=float(rng.uniform(-0.68, 0.68)) * z, z=z)

    for _ in range(int(rng.integers(1, 4))):
        _add(things, _place(rng, room, things, propose))


def make_pattern(rng: np.random.Generator, plain_share: float) -> Pattern:
    if rng.random() < plain_share:
        return Pattern()
    kind = pick(rng, PATTERNS[1:])
    return Pattern(kind, float(rng.uniform(0.25, 0.9)), float(rng.uniform(0.06, 0.3)))


def make_room(rng: np.random.Generator) -> Room:
    far_rgb = pick(rng, MUTED)
    if rng.random() < 0.25:  # a wall in the colour of things: only depth tells them apart
        far_rgb = pick(rng, tuple(COLOURS.values()))
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(-0.9, -0.2)])
    light /= np.linalg.norm(light)
    return Room(
        left=rng.uniform(1.6, 3.5),
        right=rng.uniform(1.6, 3.5),
        far=rng.uniform(4.5, 7.0),
        ceiling=rng.uniform(2.3, 3.0),
        side_rgb=pick(rng, MUTED),
        far_rgb=far_rgb,
        floor_rgb=pick(rng, MUTED),
        light=(float(light[0]), float(light[1]), float(light[2])),
    )


def _place(rng: np.random.Generator, room: Room, things: list[Thing], propose: Proposer) -> Thing | None:
    """Propose places until one is free; None when the room is too full."""
    for _ in range(12):
        thing = propose(rng, room, things)
        if thing is not None and _fits(thing, room, things):
            return thing
    return None


def _propose_any(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing | None:
    """Propose a solid as in plain rooms, or now and then in its place a piece of furniture on the floor."""
    solid = _propose(rng, room, things)
    if solid is None or solid.base > 0 or rng.random() < 0.55:
        return solid
    shape = pick(rng, tuple(name for name in FURNITURE if name != "door"))
    return replace(solid, shape=shape, width=float(rng.uniform(*SIZE_OF_FURNITURE[shape])))


def _propose_door(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing | None:
    """Propose a closed door in the far wall."""
    width = float(rng.uniform(*SIZE_OF_FURNITURE["door"]))
    x = float(rng.uniform(-0.6, 0.6)) * room.far
    return Thing("door", pick(rng, tuple(COLOURS)), width, x, room.far - DOOR_THICKNESS_M / 2)


def _propose(rng: np.random.Generator, room: Room, things: list[Thing]) -> Thing | None:
    shape, colour = pick(rng, SOLIDS), pick(rng, tuple(COLOURS))
    width = float(rng.uniform(0.35, 0.85)) * (0.75 if shape == "capsule" else 1.0)
    yaw = float(rng.uniform(0, math.pi / 2))
    kind = rng.random()
    if things and kind < 0.28:
        return _on_top(rng, Thing(shape, colour, width, 0.0, 0.0, yaw=yaw), things)
    if things and kind < 0.46:  # behind another thing, in the same colour
        front = things[int(rng.integers(len(things)))]
        return _behind(rng, front, Thing(shape, front.colour, width, 0.0, 0.0, yaw=yaw))
    if kind < 0.59:  # in the robot's way, or nearly
        return Thing(
            shape, colour, width, float(rng.uniform(-0.7, 0.7)), float(rng.uniform(1.2, 2.2)), yaw=yaw
        )
    z = float(rng.uniform(NEAREST_M, min(FARTHEST_M, room.far - 0.5)))
    return Thing(shape, colour, width, float(rng.uniform(-0.68, 0.68)) * z, z, yaw=yaw)


def _behind(rng: np.random.Generator, front: Thing, thing: Thing) -> Thing:
    """Move `thing` to where the camera sees it behind `front`, in part at most."""
    z = front.z + float(rng.uniform(0.5, 1.6))
    return replace(thing, x=front.x * z / front.z + float(rng.uniform(-0.4, 0.4)), z=z)


def _on_top(rng: np.random.Generator, thing: Thing, things: list[Thing]) -> Thing | None:
    below = things[int(rng.integers(len(things)))]
    if below.shape not in FLAT_TOPPED or below.base > 0 or below.width < 0.45:
        return None
    width = min(thing.width, 0.9 * below.width)
    return Thing(thing.shape, thing.colour, width, below.x, below.z, below.top, thing.yaw)


def _fits(thing: Thing, room: Room, things: list[Thing]) -> bool:
    if not (-room.left + thing.radius < thing.x < room.right - thing.radius):
        return False
    if thing.shape == "door":
        return room.far < FARTHEST_M and thing.top < room.ceiling
    if (
        not (0.75 + thing.radius < thing.z < min(FARTHEST_M, room.far - thing.radius))
        or thing.top > room.ceiling
    ):
        return False
    return all(apart(thing, other) for other in things)


def apart(a: Thing, b: Thing) -> bool:
    if math.hypot(a.x - b.x, a.z - b.z) > a.radius + b.radius + 0.03 or "door" in (a.shape, b.shape):
        return True
    return a.base >= b.top or b.base >= a.top


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
