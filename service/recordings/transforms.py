"""The transforms of a recording: a tree of frames that move, and the pose of one in another at a time."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FIXED = ("map", "odom", "world")
"""Names by REP 105 of frames that stand still, the best first."""
NEAR_S = 0.1
"""A transform that was said last is taken so much longer, and so much before it was said first."""


@dataclass(frozen=True, eq=False)
class Transform:
    """Hold a rigid transform: position [3] in metres, quaternion [4] as x, y, z, w."""

    position: Array
    quaternion: Array

    def then(self, inner: Transform) -> Transform:
        """Return what first applies `inner`, then this."""
        moved = self.position + turned(self.quaternion, inner.position)
        return Transform(moved, multiplied(self.quaternion, inner.quaternion))


@dataclass
class _Edge:
    """Hold how a frame lies in its parent: once for all, or at ascending times."""

    parent: str
    is_static: bool
    times: list[float] = field(default_factory=list)
    transforms: list[Transform] = field(default_factory=list)

    def at(self, time: float) -> Transform | None:
        """Interpolate; None before the first and after the last."""
        if self.is_static:
            return self.transforms[-1]
        if not self.times[0] - NEAR_S <= time <= self.times[-1] + NEAR_S:
            return None
        right = bisect_right(self.times, time)
        if right in (0, len(self.times)):
            return self.transforms[min(right, len(self.times) - 1)]
        before, after = self.times[right - 1], self.times[right]
        first, second = self.transforms[right - 1 : right + 1]
        return between(first, second, (time - before) / (after - before))


class TransformTree:
    """Collect transforms, in any order, then answer where a frame was."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self._is_sorted = True

    def add(self, parent: str, child: str, time: float, transform: Transform, is_static: bool) -> None:
        """Add that `child` lay so in `parent` at a time, or always."""
        edge = self._edges.setdefault(child.lstrip("/"), _Edge(parent.lstrip("/"), is_static))
        edge.parent = parent.lstrip("/")
        edge.times.append(time)
        edge.transforms.append(transform)
        self._is_sorted = False

    def above(self, frame: str) -> list[str]:
        """Return the frames above one, the nearest first, itself excluded."""
        found = list[str]()
        edge = self._edges.get(frame.lstrip("/"))
        while edge is not None and edge.parent not in found:
            found.append(edge.parent)
            edge = self._edges.get(edge.parent)
        return found

    def fixed(self, frame: str) -> str | None:
        """Return the frame that stands still above one: map, odom or world, else the root of its tree."""
        above = self.above(frame)
        return next((name for name in FIXED if name in above), above[-1] if above else None)

    def pose(self, frame: str, world: str, time: float) -> Transform | None:
        """Return the pose of a frame in one above it at a time, None where that is not known."""
        self._sort()
        pose, name = Transform(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])), frame.lstrip("/")
        for _ in range(len(self._edges) + 1):
            if name == world.lstrip("/"):
                return pose
            edge = self._edges.get(name)
            step = None if edge is None else edge.at(time)
            if edge is None or step is None:
                return None
            pose, name = step.then(pose), edge.parent
        return None

    def _sort(self) -> None:
        if self._is_sorted:
            return
        for edge in self._edges.values():
            if edge.is_static:
                continue
            order = sorted(range(len(edge.times)), key=edge.times.__getitem__)
            edge.times = [edge.times[at] for at in order]
            edge.transforms = [edge.transforms[at] for at in order]
        self._is_sorted = True


def between(one: Transform, other: Transform, share: float) -> Transform:
    """Interpolate: positions on a line, rotations on a great circle."""
    first, second = one.quaternion, other.quaternion
    cosine = float(first @ second)
    if cosine < 0:  # the same rotation, the shorter way round
        second, cosine = -second, -cosine
    angle = np.arccos(min(1.0, cosine))
    if angle < 1e-6:
        weights = 1 - share, share
    else:
        weights = np.sin((1 - share) * angle) / np.sin(angle), np.sin(share * angle) / np.sin(angle)
    mixed = weights[0] * first + weights[1] * second
    return Transform((1 - share) * one.position + share * other.position, mixed / np.linalg.norm(mixed))


def multiplied(one: Array, other: Array) -> Array:
    """Return the product of two quaternions x, y, z, w."""
    a, b = one[:3], other[:3]
    return np.append(one[3] * b + other[3] * a + np.cross(a, b), one[3] * other[3] - a @ b)


def turned(quaternion: Array, point: Array) -> Array:
    """Turn a point [3] by a unit quaternion x, y, z, w."""
    axis, w = quaternion[:3], quaternion[3]
    across = 2 * np.cross(axis, point)
    return point + w * across + np.cross(axis, across)
