"""The poses and depth that a method is given: the true ones, a sensor's, or wrong ones as a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depth.depth_map import metric_depth
from depth.geometry import PatchGrid, PatchPoints, inverted, patch_points, read_intrinsics
from evals.rooms.walks.splits import WalkExample
from service.roomqa.depth_cameras import sensed_depth
from service.roomqa.walks.drift import drifted
from service.roomqa.walks.world import intrinsics
from tosa.frames import FrameTokens

Pose = NDArray[np.float64]
Depth = NDArray[np.float32]
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
HOLES = 0.3
PATCH_PX = 16


@dataclass(frozen=True, eq=False)
class Posed:
    """What comes with each of the frames shown: depth in metres, 0 where there is none, and the pose."""

    depth: tuple[Depth, ...]
    poses: tuple[Pose, ...]


def _true(one: Posed, other: Posed, seed: int) -> Posed:
    return one


def _poses(change: Callable[[Sequence[Pose], Posed, int], Sequence[Pose]]) -> Control:
    return lambda one, other, seed: Posed(one.depth, tuple(change(one.poses, other, seed)))


def _depths(change: Callable[[Sequence[Depth], Posed, int], Sequence[Depth]]) -> Control:
    return lambda one, other, seed: Posed(tuple(change(one.depth, other, seed)), one.poses)


def _shuffled(poses: Sequence[Pose], other: Posed, seed: int) -> list[Pose]:
    order = np.random.default_rng((seed, 11)).permutation(len(poses))
    return [poses[at] for at in order]


def _drift(metres: float) -> Control:
    return _poses(lambda poses, other, seed: drifted(poses, metres, seed))


def _holes(depth: Sequence[Depth], other: Posed, seed: int) -> list[Depth]:
    """Drop whole patches, as reflections do: single pixels would leave every patch its median."""
    rng = np.random.default_rng((seed, 12))
    found = []
    for one in depth:
        side = len(one) // PATCH_PX
        lost = (rng.random((side, side)) < HOLES).repeat(PATCH_PX, 0).repeat(PATCH_PX, 1)
        found.append(np.where(lost, 0, one).astype(np.float32))
    return found


def _another_frame(depth: Sequence[Depth], other: Posed, seed: int) -> list[Depth]:
    half = len(depth) // 2
    return [*depth[half:], *depth[:half]]


Control = Callable[[Posed, Posed, int], Posed]
GEOMETRIES: dict[str, Control] = {
    "true": _true,
    "poses: identity": _poses(lambda poses, other, seed: [np.eye(4)] * len(poses)),
    "poses: shuffled": _poses(_shuffled),
    "poses: inverted": _poses(lambda poses, other, seed: [inverted(pose) for pose in poses]),
    "poses: of another walk": _poses(lambda poses, other, seed: other.poses),
    "poses: OpenGL read as OpenCV": _poses(lambda poses, other, seed: [pose @ OPENGL for pose in poses]),
    "depth: mm read as 1/6553.5 m": _depths(
        lambda depth, other, seed: [(one * (1000 / 6553.5)).astype(np.float32) for one in depth]
    ),
    "depth: of another frame": _depths(_another_frame),
    "depth: 30 % holes": _depths(_holes),
    "depth: active sensor": _depths(
        lambda depth, other, seed: [sensed_depth(one, 16 * seed + at) for at, one in enumerate(depth)]
    ),
    "drift: 1 cm": _drift(0.01),
    "drift: 3 cm": _drift(0.03),
    "drift: 10 cm": _drift(0.1),
}


def posed(example: WalkExample, frames: Sequence[int]) -> Posed:
    """Return the true depth and poses of some frames."""
    return Posed(
        tuple(example.frames[at].depth for at in frames),
        tuple(example.walk.cameras[at].pose for at in frames),
    )


def places(depth: Depth, grid: int) -> PatchPoints:
    """Return the points of all patches of a square frame, in camera axes."""
    size = len(depth)
    camera, _ = read_intrinsics(intrinsics(size), (size, size))
    patches = PatchGrid((grid, grid), (size // grid, size // grid), (size, size))
    return patch_points(metric_depth(depth), camera, patches)


def frame_tokens(
    features: torch.Tensor, source: torch.Tensor, depth: Depth, pose: Pose, time: float, grid: int
) -> FrameTokens:
    """Return the tokens of a frame with their places, as the service makes them."""
    found, camera = places(depth, grid), intrinsics(len(depth))
    scale = grid / len(depth)
    return FrameTokens(
        features,
        source,
        torch.from_numpy(found.points),
        torch.from_numpy(found.is_edge),
        torch.from_numpy(pose),
        (grid, grid),
        (
            camera["fx"] * scale,
            camera["fy"] * scale,
            (camera["cx"] + 0.5) * scale,
            (camera["cy"] + 0.5) * scale,
        ),
        time,
    )
