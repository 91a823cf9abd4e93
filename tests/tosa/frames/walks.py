"""Frames of a walk through a room, with features that belong to places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from depth.geometry import Intrinsics, PatchGrid, patch_points
from depth.geometry.pose import Pose, transformed
from tests.depth.geometry.worlds import look, view
from tosa.frames import FrameTokens

GRID = (6, 8)
NARROW = Intrinsics(120.0, 120.0, 39.5, 29.5, 80, 60)  # patches of 5 degrees, so that few are edges
PATCHES = PatchGrid(GRID, (10, 10), (60, 80))
CHANNELS = 16


def frame_of(pose: Pose, timestamp: float | None = None, has_pose: bool = True) -> FrameTokens:
    """Return what a camera in the room sees, a token for each patch."""
    camera = NARROW
    found = patch_points(view(pose, camera), camera, PATCHES)
    places = transformed(pose, np.nan_to_num(found.points.astype(float)))
    return FrameTokens(
        features=features_at(places),
        source=torch.arange(len(found.points)),
        points=torch.from_numpy(found.points),
        is_edge=torch.from_numpy(found.is_edge),
        pose=torch.from_numpy(pose.copy()) if has_pose else None,
        grid=GRID,
        camera=in_patches(camera),
        timestamp=timestamp,
    )


def in_patches(camera: Intrinsics) -> tuple[float, float, float, float]:
    (rows, columns), (height, width) = GRID, (camera.height, camera.width)
    x, y = columns / width, rows / height
    return camera.fx * x, camera.fy * y, (camera.cx + 0.5) * x, (camera.cy + 0.5) * y


def features_at(places: np.ndarray) -> torch.Tensor:
    """Return a feature for each place: alike in a neighbourhood of half a metre."""
    waves = np.random.default_rng(0).normal(size=(3, CHANNELS)) * 1.5
    phase = np.random.default_rng(1).uniform(0, 6, CHANNELS)
    return torch.from_numpy(np.cos(places @ waves + phase)).float()


def merged(frame: FrameTokens, tokens: int) -> FrameTokens:
    """Return the frame as a method inside it would leave it, with neighbouring patches as one token."""
    source = torch.arange(len(frame.source)) * tokens // len(frame.source)
    total = torch.zeros(tokens, frame.features.shape[1]).index_add_(0, source, frame.features)
    mean = total / torch.bincount(source)[:, None]
    return FrameTokens(
        mean, source, frame.points, frame.is_edge, frame.pose, frame.grid, frame.camera, frame.timestamp
    )


@cache
def _walk(number: int, step: float) -> tuple[FrameTokens, ...]:
    return tuple(frame_of(pose, float(at)) for at, pose in enumerate(poses(number, step)))


def walk(number: int = 6, step: float = 0.2) -> list[FrameTokens]:
    """Return frames that overlap, a second apart."""
    return [replace(frame, points=frame.points.clone()) for frame in _walk(number, step)]


def poses(number: int, step: float = 0.2) -> list[Pose]:
    """Return cameras that turn and go to and fro."""
    return [
        look(step * at, 0.2 * np.sin(0.5 * at), (0.6 * np.sin(0.3 * at) - 0.4, 0.0, 0.1 * np.sin(0.7 * at)))
        for at in range(number)
    ]


def moved(frames: Sequence[FrameTokens], by: Pose) -> list[FrameTokens]:
    """Return the same frames in a world that was moved as a whole."""
    whole = torch.from_numpy(by)
    return [frame if frame.pose is None else replace(frame, pose=whole @ frame.pose) for frame in frames]
