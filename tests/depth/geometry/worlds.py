"""A room that rays are cast into, with exact depth and poses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depth import DepthMap, metric_depth
from depth.geometry.camera import Intrinsics
from depth.geometry.pose import Pose

ROOM = np.array([[-3.0, -1.3, -2.5], [3.0, 1.3, 2.5]])  # metres: low and high corner; y is down
CAMERA = Intrinsics(60.0, 60.0, 39.5, 29.5, 80, 60)
BOX = np.array([[0.5, 0.4, 0.6], [1.3, 1.3, 1.4]])  # a cupboard on the floor


def look(yaw: float, pitch: float = 0.0, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Pose:
    """Return a pose, camera to world in OpenCV axes, turned about y by yaw and then about x (radians)."""
    c, s = np.cos(yaw), np.sin(yaw)
    d, t = np.cos(pitch), np.sin(pitch)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    pose[:3, 3] = at
    return pose


def cast(pose: Pose, camera: Intrinsics = CAMERA) -> NDArray[np.float64]:
    """Return the depth along the axis in metres that a camera in the room sees: [H, W]."""
    v, u = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = camera.points(u, v, np.ones_like(u)) @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = (ROOM[:, None, None] - pose[:3, 3]) / rays
        wall = np.where(rays == 0, np.inf, ways.max(axis=0)).min(axis=-1)
        box = (BOX[:, None, None] - pose[:3, 3]) / rays
    into, out = box.min(axis=0).max(axis=-1), box.max(axis=0).min(axis=-1)
    return np.where((into > 0) & (into < out), np.minimum(into, wall), wall)


def view(pose: Pose, camera: Intrinsics = CAMERA) -> DepthMap:
    """Return what `cast` returns as a depth map."""
    return metric_depth(cast(pose, camera))
