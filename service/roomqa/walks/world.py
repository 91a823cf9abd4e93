"""Data of a walk: rooms seen from many places, and things that may be moved on the way.

The world has x to the right, z forward and heights up from the floor, in metres, as a scene has; a camera
stands anywhere in it, level, and looks along its yaw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.roomqa.scene import CAMERA_HEIGHT_M, FOCAL, HORIZON, Room, Thing

FRAMES = 16
SECONDS_APART = 0.5
EIGHT = (0, 2, 4, 6, 9, 11, 13, 15)
"""The frames that stand for a walk where only eight are shown."""


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and where it looks: yaw in radians, to the right of z."""

    x: float
    z: float
    yaw: float

    @property
    def pose(self) -> NDArray[np.float64]:
        """Return the pose [4, 4] from camera to world, in OpenCV axes; y points down, the floor is at 0."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        pose = np.eye(4)
        pose[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        pose[:3, 3] = self.x, -CAMERA_HEIGHT_M, self.z
        return pose

    def seen(self, x: float, z: float) -> tuple[float, float]:
        """Return what is at x, z of the world as (to the right, forward) of the camera, in metres."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        x, z = x - self.x, z - self.z
        return x * cos - z * sin, x * sin + z * cos

    def thing(self, thing: Thing) -> Thing:
        """Return a thing of the world as it stands before the camera."""
        x, z = self.seen(thing.x, thing.z)
        return replace(thing, x=x, z=z, yaw=thing.yaw - self.yaw)


def intrinsics(size: int) -> dict[str, float]:
    """Return fx, fy, cx, cy of a picture of `size` px square; pixel centres are at integers."""
    return {"fx": FOCAL * size, "fy": FOCAL * size, "cx": size / 2 - 0.5, "cy": HORIZON * size - 0.5}


Wall = tuple[float, float, float, float]
"""An inner wall from floor to ceiling: x from, x to, z from, z to."""


@dataclass(frozen=True)
class House:
    """One room or two: outer walls at x = -left and right and at z = near and far, and walls inside."""

    room: Room
    near: float
    inner: tuple[Wall, ...] = ()


@dataclass(frozen=True)
class Move:
    """From a frame on, a thing stands elsewhere."""

    thing: int
    frame: int
    x: float
    z: float


@dataclass(frozen=True)
class Walk:
    """A house, its things as they stood at first, the cameras of the frames in order, and what was moved.

    kind: of the route, one of ROUTES.
    """

    seed: int
    house: House
    things: tuple[Thing, ...]
    cameras: tuple[Camera, ...]
    kind: str
    moves: tuple[Move, ...] = ()

    def things_at(self, frame: int) -> tuple[Thing, ...]:
        """Return all things as they stand in a frame, in the same order in every frame."""
        things = list(self.things)
        for move in self.moves:
            if frame >= move.frame:
                things[move.thing] = replace(things[move.thing], x=move.x, z=move.z)
        return tuple(things)
