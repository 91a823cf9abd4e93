"""Intrinsics: scaling is exact, and numbers of another size or of no pinhole are noticed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from depth import DepthError
from depth.geometry.camera import Intrinsics, corrected_fy, read_intrinsics

HM3D = {"fx": 960.0, "fy": 1141.73, "cx": 959.5, "cy": 539.5}


def test_scaling_keeps_what_a_pixel_edge_sees() -> None:
    camera = Intrinsics(500, 510, 320.25, 239.75, 640, 480)
    small = camera.scaled((384, 384))
    for u, v in ((-0.5, -0.5), (639.5, 479.5), (100.0, 17.0)):
        x, y = (u + 0.5) * 384 / 640 - 0.5, (v + 0.5) * 384 / 480 - 0.5
        assert math.isclose((u - camera.cx) / camera.fx, (x - small.cx) / small.fx)
        assert math.isclose((v - camera.cy) / camera.fy, (y - small.cy) / small.fy)
    assert np.allclose(vars(small.scaled((480, 640)))["cx"], camera.cx)


def test_points_and_pixels_are_inverse() -> None:
    camera = Intrinsics(500, 510, 320.25, 239.75, 640, 480)
    u, v, z = (np.array(side) for side in ([3.0, 639.0], [7.0, 400.0], [1.5, 4.0]))
    points = camera.points(u, v, z)
    assert points[:, 2].tolist() == z.tolist()
    assert np.allclose(np.stack(camera.pixels(points)), (u, v))


def test_a_field_of_view_means_square_pixels_about_the_middle() -> None:
    camera, doubts = read_intrinsics({"hfov": 90}, (1080, 1920))
    assert doubts == () and math.isclose(camera.fx, 960) and math.isclose(camera.fy, 960)
    assert (camera.cx, camera.cy) == (959.5, 539.5)
    both, _ = read_intrinsics({"hfov": 90, "vfov": 90}, (1080, 1920))
    assert math.isclose(both.fy, 540)
    assert math.isclose(read_intrinsics({"vfov": 90}, (480, 640))[0].fx, 240)


def test_intrinsics_of_another_size_are_scaled() -> None:
    raw = {"fx": 1169.6, "fy": 1167.1, "cx": 646.3, "cy": 489.9, "width": 1296, "height": 968}
    camera, doubts = read_intrinsics(raw, (480, 640))
    assert doubts == () and (camera.width, camera.height) == (640, 480)
    assert math.isclose(camera.fx, 1169.6 * 640 / 1296) and math.isclose(camera.cx, 646.8 * 640 / 1296 - 0.5)


def test_the_fy_of_openeqa_is_offered_a_correction() -> None:
    camera, (doubt,) = read_intrinsics(HM3D, (1080, 1920))
    assert camera.fy == 1141.73 and doubt.code == "maybe_wrong_fy"
    assert "fx = fy = 960, cx = 959.5, cy = 539.5" in doubt.sentence
    corrected = corrected_fy(camera)
    assert corrected is not None and corrected_fy(corrected) is None
    # A row at the top edge, 3 m away: 0.27 m of height are lost.
    assert round((539.5 / 960 - 539.5 / 1141.73) * 3, 2) == 0.27


def test_pixels_that_are_not_square_are_no_doubt_by_themselves() -> None:
    assert read_intrinsics({"fx": 600, "fy": 700, "cx": 319.5, "cy": 239.5}, (480, 640))[1] == ()


def test_a_principal_point_far_from_the_middle_is_a_doubt() -> None:
    _, (doubt,) = read_intrinsics({"fx": 577.6, "fy": 578.7, "cx": 318.9, "cy": 242.7}, (968, 1296))
    assert doubt.code == "maybe_other_size"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([500, 500, 320, 240], "intrinsics_form"),
        ({}, "intrinsics_form"),
        ({"fx": 500, "fy": 500, "cx": 320}, "intrinsics_form"),
        ({**HM3D, "width": 1920}, "intrinsics_form"),
        ({**HM3D, "k1": 0.1}, "intrinsics_form"),
        ({**HM3D, "fx": "960"}, "intrinsics_form"),
        ({**HM3D, "width": 1920.5, "height": 1080}, "intrinsics_form"),
        ({**HM3D, "fx": math.nan}, "intrinsics_not_finite"),
        ({**HM3D, "fy": 0}, "intrinsics_not_finite"),
        ({**HM3D, "cx": 1919.6}, "intrinsics_outside"),
        ({**HM3D, "width": 1000, "height": 1080}, "intrinsics_aspect"),
        ({"hfov": 180}, "intrinsics_fov"),
        ({"hfov": 0}, "intrinsics_fov"),
    ],
)
def test_wrong_intrinsics_are_refused_by_what_is_wrong(raw: Any, reason: str) -> None:
    with pytest.raises(DepthError) as refused:
        read_intrinsics(raw, (1080, 1920))
    assert refused.value.reason == reason and refused.value.field == "intrinsics"
