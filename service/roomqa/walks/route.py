"""The routes of walks: round a room, turning in its middle, or through a door into the next one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.roomqa.scene import Room
from service.roomqa.walks.world import FRAMES, Camera, House, Wall

MARGIN_M = 0.6
"""From the camera to walls."""
DOORWAY_M = 1.3
WALL_M = 0.1
SECOND_ROOM_M = 2.0
"""What a house of two rooms has more in length."""


def around(rng: np.random.Generator, room: Room) -> tuple[House, tuple[Camera, ...]]:
    """Go round the middle of a room and look at it: the same things from several sides."""
    house = House(room, near=-float(rng.uniform(0.7, 1.2)))
    middle_x, middle_z = (room.right - room.left) / 2, (house.near + room.far) / 2
    wide, long = (room.left + room.right) / 2 - MARGIN_M, (room.far - house.near) / 2 - MARGIN_M
    start = -math.pi / 2 + float(rng.uniform(-0.4, 0.4))
    sweep = float(rng.uniform(2.4, 5.4)) * _side(rng)
    looks = float(rng.uniform(-0.35, 0.35))
    cameras = []
    for share in np.linspace(0, 1, FRAMES):
        angle = start + sweep * float(share)
        x, z = middle_x + wide * math.cos(angle), middle_z + long * math.sin(angle)
        yaw = math.atan2(middle_x - x, middle_z - z) + looks + float(rng.normal(0, 0.12))
        cameras.append(Camera(x, z, yaw))
    return house, tuple(cameras)


def turning(rng: np.random.Generator, room: Room) -> tuple[House, tuple[Camera, ...]]:
    """Turn once round and a little more in the middle of a room: the first things come into view again."""
    house = House(room, near=-float(rng.uniform(2.0, 3.2)))
    x, z = (room.right - room.left) / 2, (house.near + room.far) / 2
    begin, total = float(rng.uniform(-0.3, 0.3)), float(rng.uniform(5.8, 7.2)) * _side(rng)
    drift = rng.normal(0, 0.15, (FRAMES, 2)).cumsum(axis=0) / math.sqrt(FRAMES)
    return house, tuple(
        Camera(x + float(dx), z + float(dz), begin + total * float(share))
        for (dx, dz), share in zip(drift, np.linspace(0, 1, FRAMES), strict=True)
    )


def through(rng: np.random.Generator, room: Room) -> tuple[House, tuple[Camera, ...]]:
    """Look round a room, go through a door into the next one and look round there: things seen once."""
    room = replace(room, far=room.far + SECOND_ROOM_M)
    middle = float(rng.uniform(0.4, 0.5)) * room.far
    gap = float(rng.uniform(-0.4, 0.4)) * min(room.left, room.right)
    house = House(room, -float(rng.uniform(0.7, 1.2)), _partition(room, middle, gap))
    stations = ((0.0, house.near + MARGIN_M), (gap, middle - 0.9), (gap, middle + 0.5), (gap, room.far - 1.6))
    swing, phase = float(rng.uniform(0.5, 0.95)), float(rng.uniform(0, 2 * math.pi))
    cameras = []
    for share in np.linspace(0, 1, FRAMES):
        at = float(share) * (len(stations) - 1)
        x, z = (
            float(np.interp(at, range(len(stations)), [one[axis] for one in stations])) for axis in (0, 1)
        )
        cameras.append(Camera(x, z, swing * math.sin(phase + 4.2 * math.pi * float(share))))
    return house, tuple(cameras)


def _partition(room: Room, z: float, gap: float) -> tuple[Wall, ...]:
    low, high = z - WALL_M / 2, z + WALL_M / 2
    return (
        (-room.left, gap - DOORWAY_M / 2, low, high),
        (gap + DOORWAY_M / 2, room.right, low, high),
    )


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


ROUTES: dict[str, Callable[[np.random.Generator, Room], tuple[House, tuple[Camera, ...]]]] = {
    "around": around,
    "turning": turning,
    "through": through,
}
