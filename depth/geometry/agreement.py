"""Whether overlapping frames agree, or would agree clearly better in another convention or unit.

Points of one frame are projected into the other. What fits is compared with what would fit if poses were
world to camera, had other axes, or if poses or depth had another unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from depth.conventions import CONVENTIONS
from depth.depth_map import DepthMap
from depth.geometry.camera import Intrinsics
from depth.geometry.patches import MAX_RANGE_M, metres
from depth.geometry.pose import Pose, inverted, transformed
from depth.notes import Note

SAMPLE_SIDE = 40
_TOLERANCE_M = 0.05
_FEWEST = 60
"""Points that must fall into the other frame for a hypothesis to be judged by it."""
_FEWEST_PAIRS = 2
_GOOD, _BETTER = 0.6, 0.25
"""Share of points that fit in what is offered, and how much more that is than as the frames were sent."""
_TURN, _MOVE_M = np.radians(3.0), 0.05
"""Less motion between two frames decides nothing."""


@dataclass(frozen=True, eq=False)
class SampledFrame:
    """Hold every n-th pixel of a frame's depth in metres [h, w], the intrinsics of these, and the pose."""

    z: NDArray[np.float32]
    camera: Intrinsics
    pose: Pose


@dataclass(frozen=True)
class Hypothesis:
    """Say how frames may have been meant.

    before, after: 3 x 3, what turns the pose (or its inverse) as it was understood into the one meant.
    """

    code: str
    advice: str
    is_inverse: bool = False
    before: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    after: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    pose_scale: float = 1.0
    depth_scale: float = 1.0


_AXES = ("opencv", "opengl", "ros_body")
_UNITS = (
    Hypothesis("maybe_pose_unit", "if positions are in millimetres: send metres", pose_scale=1e-3),
    Hypothesis("maybe_pose_unit", "if positions were divided by 1000: send metres", pose_scale=1e3),
    Hypothesis("maybe_depth_unit", "with depth_scale=6553.5 instead of 1000", depth_scale=1000 / 6553.5),
    Hypothesis("maybe_depth_unit", "with depth_scale=5000 instead of 1000", depth_scale=0.2),
    Hypothesis("maybe_depth_unit", "with depth_scale=1000 instead of 5000", depth_scale=5.0),
)


@cache
def hypotheses(convention: str) -> tuple[Hypothesis, ...]:
    """Return what poses sent in this convention may have been instead."""
    sent = CONVENTIONS[convention].axes
    found = []
    for name in _AXES:
        axes = CONVENTIONS[name].axes
        if not np.array_equal(axes, sent):
            advice = f"with convention={name}"
            found.append(Hypothesis("maybe_other_convention", advice, after=sent.T @ axes))
        is_own = np.array_equal(axes, sent)
        advice = "if poses were from world to camera" + ("" if is_own else f" with convention={name}")
        inverse = f"{advice}: send their inverse"
        found.append(Hypothesis("maybe_inverse_pose", inverse, is_inverse=True, before=sent, after=axes))
    return (*found, *_UNITS)


def sampled(depth: DepthMap, camera: Intrinsics, pose: Pose) -> SampledFrame | None:
    """Return the samples of a frame; None for depth without a unit. camera: of the depth map."""
    z = metres(depth)
    if z is None:
        return None
    step = max(1, -(-max(z.shape) // SAMPLE_SIDE))
    few = z[step // 2 :: step, step // 2 :: step]
    offset = step // 2
    grid = Intrinsics(
        camera.fx / step,
        camera.fy / step,
        (camera.cx - offset) / step,
        (camera.cy - offset) / step,
        few.shape[1],
        few.shape[0],
    )
    return SampledFrame(np.ascontiguousarray(few), grid, pose)


def fit(one: SampledFrame, other: SampledFrame, meant: Hypothesis | None = None) -> float | None:
    """Return the share of one frame's points that lie on what the other saw there, 0 to 1.

    Points that fall outside the other frame, or on its holes, do not count. None where too few are left.
    """
    scale = 1.0 if meant is None else meant.depth_scale
    v, u = np.nonzero(np.isfinite(one.z) & (one.z * scale <= MAX_RANGE_M))
    z = one.z[v, u].astype(np.float64) * scale
    points = one.camera.points(u.astype(np.float64), v.astype(np.float64), z)
    there = transformed(inverted(_as_meant(other.pose, meant)) @ _as_meant(one.pose, meant), points)
    there = there[there[:, 2] > 1e-3]
    x, y = (np.rint(side).astype(np.int64) for side in other.camera.pixels(there))
    is_inside = (x >= 0) & (x < other.camera.width) & (y >= 0) & (y < other.camera.height)
    expected = there[is_inside, 2]
    found = other.z[y[is_inside], x[is_inside]].astype(np.float64) * scale
    is_seen = np.isfinite(found)
    if np.count_nonzero(is_seen) < _FEWEST:
        return None
    apart = np.abs(found[is_seen] - expected[is_seen])
    return float((apart < tolerance_m(found[is_seen] / scale) * scale).mean())


def tolerance_m(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 5 cm or three standard deviations of a Kinect's depth, whichever is more (Nguyen et al. 2012).

    At most 3 % of the depth: the Kinect's formula holds for a room, and depth of a wrong unit is far beyond.
    """
    noise = 3 * (0.0012 + 0.0019 * (z - 0.4) ** 2)
    return np.maximum(_TOLERANCE_M, np.minimum(noise, 0.03 * z))


class Agreement:
    """Collect how well consecutive frames fit, as they were sent and otherwise. convention: of all poses."""

    def __init__(self, convention: str) -> None:
        self._hypotheses = hypotheses(convention)
        self._others = np.zeros(len(self._hypotheses))
        self._own = 0.0
        self.pairs = 0

    def add(self, one: SampledFrame, other: SampledFrame) -> None:
        """Compare two frames, unless the camera hardly moved between them or they do not overlap."""
        if not _has_moved(one.pose, other.pose):
            return
        own = fit(one, other) or 0.0
        # What fits well cannot be beaten clearly.
        shares = [own if own > 1 - _BETTER else fit(one, other, meant) or 0.0 for meant in self._hypotheses]
        if own or any(shares):
            self.pairs += 1
            self._own += own
            self._others += shares

    @property
    def mean(self) -> float | None:
        """Return the mean share of points that fit as sent, None before any two frames overlapped."""
        return self._own / self.pairs if self.pairs else None

    def doubts(self) -> Iterator[Note]:
        """Yield a note where another convention or unit fits clearly better."""
        if self.pairs < _FEWEST_PAIRS:
            return
        best = int(self._others.argmax())
        share, own = self._others[best] / self.pairs, self._own / self.pairs
        if share < _GOOD or share < own + _BETTER:
            return
        meant = self._hypotheses[best]
        sentence = (
            f"Of what overlapping frames both see, {100 * own:.0f} % lies at the same place; it would be "
            f"{100 * share:.0f} % {meant.advice}."
        )
        yield Note(meant.code, sentence)


def _as_meant(pose: Pose, meant: Hypothesis | None) -> Pose:
    """Return the pose that was sent if it was meant otherwise; `pose` is in OpenCV axes already."""
    if meant is None:
        return pose
    pose = inverted(pose) if meant.is_inverse else pose.copy()
    pose[:3] = meant.before @ pose[:3]
    pose[:3, 3] *= meant.pose_scale
    pose[:3, :3] = pose[:3, :3] @ meant.after
    return pose


def _has_moved(one: Pose, other: Pose) -> bool:
    between = inverted(other) @ one
    angle = np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1))
    sideways = np.hypot(*between[:2, 3])
    return bool(angle > _TURN or sideways > _MOVE_M)
