"""Build walks by seed: a house, a route through it, and things beside the route."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.roomqa.arrange import apart, make_pattern, make_room, pick
from service.roomqa.scene import (
    COLOURS,
    FLAT_TOPPED,
    FOCAL,
    FURNITURE,
    SIZE_OF_FURNITURE,
    SOLIDS,
    Thing,
)
from service.roomqa.walks.route import ROUTES
from service.roomqa.walks.world import FRAMES, Camera, House, Move, Walk

STANDING = tuple(name for name in FURNITURE if name != "door")
CLEAR_M = 0.5
"""Between a thing and every place of the camera."""
WIDER_M = 0.6
"""What the rooms of walks have more on either side than those of single scenes."""
_TRIES = 40


def make_walk(seed: int, moves: bool = False) -> Walk:
    """Build the walk of `seed`; moves: one thing stands elsewhere from some frame on, if it went unseen."""
    rng = np.random.default_rng((seed, 5))
    room = replace(make_room(rng), floor=make_pattern(rng, 0.35), walls=make_pattern(rng, 0.5))
    room = replace(room, left=room.left + WIDER_M, right=room.right + WIDER_M)
    kind = pick(rng, tuple(ROUTES))
    house, cameras = ROUTES[kind](rng, room)
    things: list[Thing] = []
    for _ in range(int(rng.integers(5, 10))):
        _place(rng, house, cameras, things, _new(rng, things))
    if rng.random() < 0.6:
        _repeat(rng, house, cameras, things)
    walk = Walk(seed, house, tuple(things), cameras, kind)
    return _moved(walk, np.random.default_rng((seed, 6))) if moves else walk


def _new(rng: np.random.Generator, things: Sequence[Thing]) -> Thing:
    """Draw a thing that has no place yet: a solid, or now and then furniture."""
    colour, yaw = pick(rng, tuple(COLOURS)), float(rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.45:
        shape = pick(rng, STANDING)
        return Thing(shape, colour, float(rng.uniform(*SIZE_OF_FURNITURE[shape])), 0, 0, yaw=yaw)
    shape = pick(rng, SOLIDS)
    width = float(rng.uniform(0.4, 0.85)) * (0.75 if shape == "capsule" else 1.0)
    below = [one for one in things if one.shape in FLAT_TOPPED and one.base == 0 and one.width >= 0.45]
    if below and rng.random() < 0.25:
        table = pick(rng, below)
        return Thing(shape, colour, min(width, 0.9 * table.width), table.x, table.z, table.top, yaw)
    return Thing(shape, colour, width, 0, 0, yaw=yaw)


def _repeat(rng: np.random.Generator, house: House, cameras: Sequence[Camera], things: list[Thing]) -> None:
    """Add one to three things of a shape that is there, half of them in its colour."""
    standing = [one for one in things if one.base == 0]
    if not standing:
        return
    model = pick(rng, standing)
    for _ in range(int(rng.integers(1, 4))):
        colour = model.colour if rng.random() < 0.5 else pick(rng, tuple(COLOURS))
        yaw = float(rng.uniform(0, 2 * math.pi))
        _place(rng, house, cameras, things, replace(model, colour=colour, yaw=yaw))


def _place(
    rng: np.random.Generator,
    house: House,
    cameras: Sequence[Camera],
    things: list[Thing],
    thing: Thing,
) -> None:
    """Put a thing where nothing is in the way, on the floor unless it has a place; or leave it out."""
    for _ in range(1 if thing.base > 0 else _TRIES):
        if thing.base == 0:
            thing = _somewhere(rng, house, thing)
        if fits(thing, house, cameras, things):
            things.append(thing)
            return


def _somewhere(rng: np.random.Generator, house: House, thing: Thing) -> Thing:
    room = house.room
    x, z = rng.uniform(-room.left, room.right), rng.uniform(house.near, room.far)
    return replace(thing, x=float(x), z=float(z))


def fits(thing: Thing, house: House, cameras: Sequence[Camera], things: Sequence[Thing]) -> bool:
    """Whether a thing touches no wall and no other thing, and stands beside the route."""
    room, radius = house.room, thing.radius + 0.05
    if not (-room.left + radius < thing.x < room.right - radius and thing.top < room.ceiling):
        return False
    if not house.near + radius < thing.z < room.far - radius:
        return False
    for x0, x1, z0, z1 in house.inner:
        if math.hypot(max(x0 - thing.x, 0, thing.x - x1), max(z0 - thing.z, 0, thing.z - z1)) < radius:
            return False
    if any(math.hypot(thing.x - one.x, thing.z - one.z) < radius + CLEAR_M for one in cameras):
        return False
    return all(apart(thing, other) for other in things)


def _moved(walk: Walk, rng: np.random.Generator) -> Walk:
    """Move one thing while the camera looks elsewhere: neither its old place nor the new one is in view."""
    held = {(one.x, one.z) for one in walk.things if one.base > 0}
    free = [at for at, one in enumerate(walk.things) if one.base == 0 and (one.x, one.z) not in held]
    for at in rng.permutation(np.array(free, dtype=np.int64)).tolist():
        old = walk.things[at]
        others = [one for number, one in enumerate(walk.things) if number != at]
        for _ in range(_TRIES):
            new = _somewhere(rng, walk.house, old)
            if not fits(new, walk.house, walk.cameras, others):
                continue
            frames = [
                frame
                for frame in range(3, FRAMES - 2)
                if not any(
                    may_see(walk.cameras[near], place) for near in (frame - 1, frame) for place in (old, new)
                )
            ]
            if frames:
                frame = pick(rng, frames)
                return replace(walk, moves=(Move(at, frame, new.x, new.z),))
    return walk


def may_see(camera: Camera, thing: Thing) -> bool:
    """Whether a thing is in the field of view, also behind other things and walls."""
    x, z = camera.seen(thing.x, thing.z)
    return z + thing.radius > 0.1 and abs(x) - thing.radius < (z + thing.radius) / (2 * FOCAL)
