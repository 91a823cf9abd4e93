"""Frames that overlap agree; in a wrong convention or unit they do not, and the right one is named."""

from __future__ import annotations

import numpy as np
import pytest

from depth.conventions import CONVENTIONS
from depth.geometry.agreement import Agreement, fit, sampled
from depth.geometry.pose import Pose, inverted, read_pose
from tests.depth.geometry.worlds import CAMERA, look, view

WALK = [look(0.35 * step, 0.1 * step, (0.25 * step - 0.6, 0.1 * step, 0.2 * step)) for step in range(5)]


ROUND = [look(0.3 * step, at=(1.3 - 0.7 * step, 0.0, -1.2 + 0.4 * step)) for step in range(5)]
"""A walk of longer steps: without them a unit of depth makes little difference."""


def agreement(
    sent: list[Pose], convention: str, depth_scale: float = 1.0, walk: list[Pose] | None = None
) -> Agreement:
    found = Agreement(convention)
    frames = []
    for true, pose in zip(walk or WALK, sent, strict=True):
        depth = view(true)
        depth = type(depth)(depth.values * np.float32(depth_scale), depth.kind, depth.unit, depth.valid)
        frame = sampled(depth, CAMERA, read_pose(pose.tolist(), convention))
        assert frame is not None
        frames.append(frame)
    for one, other in zip(frames[1:], frames, strict=False):
        found.add(one, other)
    return found


def written(convention: str) -> list[Pose]:
    axes = np.eye(4)
    axes[:3, :3] = CONVENTIONS[convention].axes.T
    return [pose @ axes for pose in WALK]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_frames_in_the_convention_that_was_named_agree(convention: str) -> None:
    found = agreement(written(convention), convention)
    assert found.pairs >= 3 and found.mean is not None and found.mean > 0.85
    assert list(found.doubts()) == []


@pytest.mark.parametrize(
    ("meant", "named", "advice"),
    [
        ("opengl", "opencv", "convention=opengl"),
        ("opencv", "opengl", "convention=opencv"),
        ("opencv", "habitat", "convention=opencv"),
        ("ros_body", "ros_optical", "convention=ros_body"),
        ("ros_optical", "ros_body", "convention=opencv"),
    ],
)
def test_another_convention_is_a_doubt_that_names_it(meant: str, named: str, advice: str) -> None:
    (doubt,) = agreement(written(meant), named).doubts()
    assert doubt.code == "maybe_other_convention" and advice in doubt.sentence


def test_world_to_camera_is_a_doubt() -> None:
    (doubt,) = agreement([inverted(pose) for pose in WALK], "opencv").doubts()
    assert doubt.code == "maybe_inverse_pose"


def test_positions_in_millimetres_are_a_doubt() -> None:
    sent = [pose.copy() for pose in WALK]
    for pose in sent:
        pose[:3, 3] *= 1000
    (doubt,) = agreement(sent, "opencv").doubts()
    assert doubt.code == "maybe_pose_unit"


def test_depth_of_another_unit_is_a_doubt() -> None:
    (doubt,) = agreement(ROUND, "opencv", 6.5535, ROUND).doubts()
    assert doubt.code == "maybe_depth_unit" and "6553.5" in doubt.sentence


def test_a_camera_that_stands_still_or_only_goes_forward_decides_nothing() -> None:
    frames = [sampled(view(look(0, at=(0, 0, z))), CAMERA, look(0, at=(0, 0, z))) for z in (0.0, 0.3, 0.6)]
    found = Agreement("opencv")
    for one, other in zip(frames[1:], frames, strict=False):
        assert one is not None and other is not None
        found.add(one, other)
    assert found.pairs == 0 and found.mean is None and list(found.doubts()) == []


def test_frames_that_do_not_overlap_are_not_judged() -> None:
    there, back = (sampled(view(look(yaw)), CAMERA, look(yaw)) for yaw in (0.0, 3.1))
    assert there is not None and back is not None and fit(there, back) is None


def test_one_pair_is_not_enough_for_a_doubt() -> None:
    frames = [sampled(view(pose), CAMERA, inverted(pose)) for pose in WALK[1:3]]
    found = Agreement("opencv")
    assert frames[0] is not None and frames[1] is not None
    found.add(frames[1], frames[0])
    assert found.pairs <= 1 and list(found.doubts()) == []
