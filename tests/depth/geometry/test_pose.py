"""Poses: every convention against the same camera, and every way to send one wrongly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from depth import DepthError
from depth.conventions import CONVENTIONS
from depth.geometry.pose import inverted, read_pose, rotation_of, transformed
from tests.depth.geometry.worlds import look

POSE = look(0.7, -0.3, (1.0, 2.0, 3.0))
FORWARD, RIGHT, DOWN = np.array([0, 0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
AS_WRITTEN = {  # how each kind of camera axes writes forward, right and down
    "opencv": (FORWARD, RIGHT, DOWN),
    "opengl": (-FORWARD, RIGHT, -DOWN),
    "ros_body": (RIGHT, -DOWN, -FORWARD),
}


def as_sent(convention: str) -> np.ndarray:
    sent = POSE.copy()
    sent[:3, :3] = POSE[:3, :3] @ CONVENTIONS[convention].axes.T
    return sent


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_gives_the_same_camera(convention: str) -> None:
    assert np.allclose(read_pose(as_sent(convention).tolist(), convention), POSE)
    assert np.allclose(read_pose(as_sent(convention).ravel().tolist(), convention), POSE)


@pytest.mark.parametrize("convention", AS_WRITTEN)
def test_the_axes_are_those_that_the_names_mean(convention: str) -> None:
    axes = CONVENTIONS[convention].axes
    for direction, written in zip((FORWARD, RIGHT, DOWN), AS_WRITTEN[convention], strict=True):
        assert np.allclose(axes @ direction, written)


def test_opengl_is_a_change_of_camera_axes_and_not_of_the_world() -> None:
    pose = read_pose(as_sent("opengl").tolist(), "opengl")
    assert np.allclose(pose, as_sent("opengl") @ np.diag([1, -1, -1, 1]))
    assert np.allclose(pose[:3, 3], POSE[:3, 3])


@pytest.mark.parametrize(
    ("convention", "quaternion"), [("tum", [0, 0.6, 0, 0.8]), ("habitat", [0.8, 0, 0.6, 0])]
)
def test_quaternions_have_the_order_of_their_source(convention: str, quaternion: list[float]) -> None:
    position = [1.0, 2.0, 3.0]
    pose = read_pose({"position": position, "quaternion": quaternion}, convention)
    named = {"x": 0, "y": 0.6, "z": 0, "w": 0.8}
    assert np.allclose(pose, read_pose({"position": position, "quaternion": named}, convention))
    turn = 2 * math.atan2(0.6, 0.8)  # about y
    expected = look(turn)[:3, :3] @ CONVENTIONS[convention].axes
    assert np.allclose(pose[:3, :3], expected) and pose[:3, 3].tolist() == position


def test_a_quaternion_is_a_turn_about_its_vector() -> None:
    half = math.radians(45)
    about_z = rotation_of(np.array([0, 0, math.sin(half), math.cos(half)]))
    assert np.allclose(about_z @ [1, 0, 0], [0, 1, 0])


def test_the_inverse_takes_points_back() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.allclose(transformed(inverted(POSE), transformed(POSE, points)), points)


def broken(**changes: Any) -> list[list[float]]:
    matrix = POSE.copy()
    for name, value in changes.items():
        match name:
            case "scaled":
                matrix[:3, :3] *= value
            case "mirrored":
                matrix[:3, 0] *= -1
            case "sheared":
                matrix[0, 0] += value
            case "far":
                matrix[0, 3] = value
            case "lost":
                matrix[:] = value
            case "last":
                matrix[3, 3] = value
    return matrix.tolist()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (broken(lost=-math.inf), "pose_not_finite"),
        (broken(far=math.nan), "pose_not_finite"),
        (POSE.T.tolist(), "pose_transposed"),
        (broken(last=2.0), "pose_last_row"),
        (broken(scaled=0.01), "pose_scaled"),
        (broken(mirrored=True), "pose_mirrored"),
        (broken(sheared=0.1), "pose_rotation"),
        (broken(far=2e7), "pose_far"),
        ([0.0] * 12, "pose_form"),
        ("identity", "pose_form"),
        ([[1, 0], [0, 1]], "pose_form"),
        ([[1, 2, 3], [4]], "pose_form"),
        ([True] * 16, "pose_form"),
        ({"position": [0, 0, 0]}, "pose_form"),
        ({"position": [0, 0], "quaternion": [0, 0, 0, 1]}, "pose_form"),
        ({"position": [0, 0, 0], "quaternion": [0, 0, 1]}, "pose_form"),
        ({"position": [0, 0, 0], "quaternion": {"x": 0, "y": 0, "z": 0}}, "pose_form"),
        ({"position": [0, 0, math.inf], "quaternion": [0, 0, 0, 1]}, "pose_not_finite"),
        ({"position": [0, 0, 0], "quaternion": [0, 0, 0, 2]}, "pose_quaternion"),
    ],
)
def test_a_wrong_pose_is_refused_by_what_is_wrong(raw: Any, reason: str) -> None:
    with pytest.raises(DepthError) as refused:
        read_pose(raw, "opencv")
    assert refused.value.reason == reason and refused.value.code == "bad_pose"
    assert refused.value.field == "pose"


@pytest.mark.parametrize(("name", "reason"), [(None, "convention_missing"), ("blender", "convention")])
def test_a_pose_needs_a_known_convention(name: str | None, reason: str) -> None:
    with pytest.raises(DepthError) as refused:
        read_pose(POSE.tolist(), name)
    assert refused.value.reason == reason and "ros_optical" in str(refused.value)
    assert refused.value.choices == tuple(CONVENTIONS)


def test_a_rotation_within_the_tolerance_becomes_exact() -> None:
    rough = POSE.copy()
    rough[:3, :3] *= 1.0003
    rotation = read_pose(rough.tolist(), "opencv")[:3, :3]
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-12
