"""Frames of a walk through a room, as a robot sends them: JPEG, depth in millimetres, pose."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT, FOCAL = 640, 480, 525.0
INTRINSICS = {"fx": FOCAL, "fy": FOCAL, "cx": (WIDTH - 1) / 2, "cy": (HEIGHT - 1) / 2}
ROOM_M = np.array([6.0, 2.6, 5.0])  # x, y down, z; the camera walks about its middle
BOXES = (
    ((-2.6, 0.5, 1.2), (-1.4, 1.3, 2.4)),
    ((1.6, 0.7, 1.0), (2.4, 1.3, 1.8)),
    ((0.9, 0.2, -2.3), (1.9, 1.3, -1.7)),
    ((-2.4, 0.8, -2.0), (-1.6, 1.3, -1.0)),
)
"""Corners of the furniture, in the room's axes; the floor is at y = 1.3."""
PITCH = np.radians(15)
JPEG_QUALITY = 90
TILE_M = 0.35

Pose = NDArray[np.float64]


@dataclass(frozen=True)
class WalkFrame:
    """Hold one frame. pose: camera to world in OpenCV axes, 4 x 4."""

    image: bytes
    depth: bytes
    pose: Pose

    def body(self, timestamp: float | None = None, moved_m: float = 0.0) -> dict[str, object]:
        """Return the JSON of a push; moved_m: how far along x the world has gone on since."""
        pose = self.pose.copy()
        pose[0, 3] += moved_m
        said = {} if timestamp is None else {"timestamp": timestamp}
        return {**files([self]), "pose": pose.tolist(), **said}


def files(frames: list[WalkFrame]) -> dict[str, object]:
    """Return the files of frames as JSON holds them."""
    return {
        "images": [base64.b64encode(frame.image).decode() for frame in frames],
        "depths": [base64.b64encode(frame.depth).decode() for frame in frames],
    }


@lru_cache(maxsize=4)
def walk(number: int, first: int = 0) -> tuple[WalkFrame, ...]:
    """Return frames `first` to `first + number` of a walk that turns ten degrees from frame to frame."""
    return tuple(_frame(_pose(at)) for at in range(first, first + number))


def _pose(at: int) -> Pose:
    turned = np.radians(10 * at)
    pose = np.eye(4)
    down = np.array([[1, 0, 0], [0, np.cos(PITCH), np.sin(PITCH)], [0, -np.sin(PITCH), np.cos(PITCH)]])
    around = [[np.cos(turned), 0, np.sin(turned)], [0, 1, 0], [-np.sin(turned), 0, np.cos(turned)]]
    pose[:3, :3] = np.array(around) @ down
    pose[:3, 3] = [0.8 * np.sin(0.13 * at), 0, 0.6 * np.cos(0.07 * at)]
    return pose


def _frame(pose: Pose) -> WalkFrame:
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(u - INTRINSICS["cx"]) / FOCAL, (v - INTRINSICS["cy"]) / FOCAL, np.ones_like(u)], -1)
    ways = rays @ pose[:3, :3].T
    z = _distance(pose[:3, 3], ways)  # rays have z = 1 in the camera: this is depth along the axis
    places = pose[:3, 3] + z[..., None] * ways
    rng = np.random.default_rng(int(1000 * (pose[0, 3] + 2 * pose[2, 3] + 7 * pose[0, 0])) % 2**32)
    sigma = 0.0012 + 0.0019 * (z - 0.4) ** 2  # metres, of a Kinect
    depth = np.round(1000 * (z + sigma * rng.normal(size=z.shape))).astype(np.uint16)
    pixels = _painted(places) + rng.integers(-6, 7, (*z.shape, 3))
    return WalkFrame(_file(pixels.clip(0, 255).astype(np.uint8), "JPEG"), _file(depth, "PNG"), pose)


def _distance(eye: NDArray[np.float64], ways: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many times its way [H, W, 3] each ray goes to the first box or wall that it meets."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (np.where(ways > 0, ROOM_M / 2 - eye, -ROOM_M / 2 - eye) / ways).min(axis=-1)
        for low, high in BOXES:
            one, other = (np.array(low) - eye) / ways, (np.array(high) - eye) / ways
            near, far = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
            distance = np.where((near < far) & (near > 0), np.minimum(distance, near), distance)
    return distance


def _painted(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Paint what lies at places [H, W, 3] with tiles of their own colours."""
    tiles = np.floor(places / TILE_M + 0.01).astype(np.int64)
    mixed = (tiles @ np.array([73_856_093, 19_349_663, 83_492_791])) % 9973
    return np.stack([(mixed * by % 200 + 40) for by in (7, 31, 101)], axis=-1).astype(np.uint8)


def _file(pixels: NDArray[np.uint8] | NDArray[np.uint16], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()
