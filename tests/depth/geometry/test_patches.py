"""Points of patches: medians, holes, edges, and pictures that were squashed or cut."""

from __future__ import annotations

import numpy as np
import pytest

from depth import DepthMap, masked_depth, metric_depth
from depth.geometry.camera import Intrinsics
from depth.geometry.patches import PatchGrid, patch_points
from depth.geometry.pose import transformed
from tests.depth.geometry.worlds import CAMERA, ROOM, cast, look, view

SQUASHED = PatchGrid((27, 27), (14, 14), (384, 384))
TWO = PatchGrid((1, 2), (8, 8), (8, 16))


def two(left: np.ndarray, right: np.ndarray) -> DepthMap:
    return metric_depth(np.concatenate([left, right], axis=1))


def flat(z: float, holes: float = 0.0) -> np.ndarray:
    values = np.full(64, z)
    values[: round(64 * holes)] = 0
    return values.reshape(8, 8)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1296, 968), (1920, 1080), (80, 60)])
def test_a_squashed_view_loses_nothing(width: int, height: int) -> None:
    """The centre of a patch of 14 px in 384, in pixels of the source."""
    camera = Intrinsics(0.9 * width, 0.9 * width, (width - 1) / 2, (height - 1) / 2, width, height)
    found = patch_points(
        metric_depth(np.full((height, width), 2.0) + np.eye(height, width)), camera, SQUASHED
    )
    u, v = camera.pixels(found.points.astype(float).reshape(27, 27, 3))
    for place in (0, 13, 26):
        assert np.allclose(u[5, place], (14 * place + 7) * width / 384 - 0.5, atol=width * 1e-6)
        assert np.allclose(v[place, 5], (14 * place + 7) * height / 384 - 0.5, atol=width * 1e-6)


def test_points_lie_on_the_walls_of_the_room() -> None:
    pose = look(0.4, 0.1, (0.5, -0.2, 0.3))
    camera = CAMERA.scaled((240, 320))
    found = patch_points(view(pose, camera), camera, PatchGrid((15, 20), (16, 16), (240, 320)))
    points = transformed(pose, found.points.astype(float))[~found.is_edge]
    off = np.abs(points[:, None, :] - ROOM).min(axis=(1, 2))
    assert (off < 0.03).mean() > 0.85 and found.has_point.all()  # the rest is on the cupboard


def test_depth_of_another_size_gives_the_same_points() -> None:
    pose = look(0.4)
    grid = PatchGrid((6, 8), (10, 10), (60, 80))
    small = patch_points(view(pose), CAMERA, grid)
    large_camera = CAMERA.scaled((480, 640))
    large = patch_points(view(pose, large_camera), large_camera, grid)
    is_flat = ~(small.is_edge | large.is_edge)
    assert np.abs(small.points - large.points)[is_flat].max() < 0.15
    assert np.median(np.abs(small.points - large.points)[is_flat]) < 0.02


def test_a_point_is_the_median_and_never_thin_air() -> None:
    half = flat(3.5)
    half[:5] = 1.5
    found = patch_points(two(half, flat(2.5)), Intrinsics(10, 10, 7.5, 3.5, 16, 8), TWO)
    assert found.points[0, 2] == 1.5 and found.is_edge.tolist() == [True, False]


def test_holes_do_not_pull_a_point_nearer() -> None:
    found = patch_points(two(flat(3.0, 0.3), flat(2.5)), Intrinsics(10, 10, 7.5, 3.5, 16, 8), TWO)
    assert found.points[0, 2] == 3.0


@pytest.mark.parametrize(("holes", "is_there"), [(0.7, True), (0.75, True), (0.77, False), (1.0, False)])
def test_a_patch_below_a_quarter_valid_has_no_point(holes: float, is_there: bool) -> None:
    found = patch_points(two(flat(3.0, holes), flat(2.5)), Intrinsics(10, 10, 7.5, 3.5, 16, 8), TWO)
    assert found.has_point.tolist() == [is_there, True]
    assert is_there or np.isnan(found.points[0]).all()  # and not the camera's centre


def test_far_things_and_depth_without_a_unit_have_no_point() -> None:
    camera = Intrinsics(10, 10, 7.5, 3.5, 16, 8)
    assert patch_points(two(flat(25.0), flat(2.5)), camera, TWO).has_point.tolist() == [False, True]
    relative = masked_depth(np.concatenate([flat(25), flat(2)], axis=1), "relative")
    assert not patch_points(relative, camera, TWO).has_point.any()


def test_inverse_depth_with_a_unit_is_depth() -> None:
    inverse = masked_depth(np.concatenate([flat(0.5), flat(0.25)], axis=1), "inverse", 1.0)
    found = patch_points(inverse, Intrinsics(10, 10, 7.5, 3.5, 16, 8), TWO)
    assert found.points[:, 2].tolist() == [2.0, 4.0]


def test_what_a_view_shows_beyond_the_picture_has_no_point() -> None:
    grid = PatchGrid((4, 4), (16, 16), (64, 64), (0.0, -0.25, 1.0, 1.25))  # bars above and below
    found = patch_points(metric_depth(cast(look(0.2))), CAMERA, grid)
    assert not found.has_point.reshape(4, 4)[0].any() or found.has_point.reshape(4, 4)[1].all()
    assert found.has_point.reshape(4, 4)[1:3].all()


def test_depth_coarser_than_the_patches_is_repeated() -> None:
    coarse = metric_depth(np.array([[1.0, 2.0], [3.0, 4.0]]))
    found = patch_points(coarse, Intrinsics(2, 2, 0.5, 0.5, 2, 2), PatchGrid((4, 4), (4, 4), (16, 16)))
    assert found.points[:, 2].reshape(4, 4)[::3, ::3].tolist() == [[1, 2], [3, 4]]
