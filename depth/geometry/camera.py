"""Intrinsics of a pinhole camera: read, checked, and scaled to pictures of other sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.geometry_reasons import WIDEST_FOV
from depth.notes import Note

_PIXELS, _SIDES, _ANGLES = ("fx", "fy", "cx", "cy"), ("width", "height"), ("hfov", "vfov")
_ASPECT_TOLERANCE = 0.02
_OFF_CENTRE = 0.15
"""Of a side, by which principal points of uncropped pictures do not miss the middle."""
_SAME, _SQUARE = 1e-3, 0.05


@dataclass(frozen=True)
class Intrinsics:
    """Hold focal lengths and principal point in pixels of a width x height picture; centres at integers."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def scaled(self, size: tuple[int, int]) -> Intrinsics:
        """Return those of the same view in another (height, width), also of other proportions.

        f' = f s, c' = (c + 0.5) s - 0.5 along each axis.
        """
        height, width = size
        x, y = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Intrinsics(self.fx * x, self.fy * y, cx, cy, width, height)

    def points(
        self, u: NDArray[np.float64], v: NDArray[np.float64], z: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what is at pixels u, v and depth z (m along the axis) in camera axes: [..., 3]."""
        return np.stack([(u - self.cx) * z / self.fx, (v - self.cy) * z / self.fy, z], axis=-1)

    def pixels(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pixels u, v of points [..., 3] in front of the camera."""
        z = points[..., 2]
        return points[..., 0] / z * self.fx + self.cx, points[..., 1] / z * self.fy + self.cy


def read_intrinsics(raw: object, size: tuple[int, int]) -> tuple[Intrinsics, tuple[Note, ...]]:
    """Return the intrinsics of a picture of (height, width), and doubts about them.

    raw: {"fx", "fy", "cx", "cy"}, with "width" and "height" if they are those of another size of the same
    view; or {"hfov"}, {"vfov"} or both, in degrees, where one alone means square pixels and the principal
    point is in the middle. Raises DepthError (bad_intrinsics).
    """
    if not isinstance(raw, Mapping) or not all(_is_number(value) for value in raw.values()):
        raise DepthError("intrinsics_form")
    names = set(raw)
    if names and names <= set(_ANGLES):
        return _of_view(raw.get("hfov"), raw.get("vfov"), size), ()
    if names not in (set(_PIXELS), {*_PIXELS, *_SIDES}):
        raise DepthError("intrinsics_form")
    fx, fy, cx, cy = (float(raw[name]) for name in _PIXELS)
    width, height = (_side(raw.get(name, side)) for name, side in zip(_SIDES, size[::-1], strict=True))
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or min(fx, fy) <= 0:
        raise DepthError("intrinsics_not_finite")
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        raise DepthError("intrinsics_outside")
    aspect = width * size[0] / (height * size[1])
    if max(aspect, 1 / aspect) > 1 + _ASPECT_TOLERANCE:
        raise DepthError("intrinsics_aspect")
    own = Intrinsics(fx, fy, cx, cy, width, height)
    return own.scaled(size), tuple(_doubts(own))


def _of_view(hfov: float | None, vfov: float | None, size: tuple[int, int]) -> Intrinsics:
    height, width = size
    focal = [
        None if angle is None else side / 2 / math.tan(math.radians(_angle(angle)) / 2)
        for angle, side in ((hfov, width), (vfov, height))
    ]
    fx, fy = focal[0] or focal[1], focal[1] or focal[0]
    assert fx is not None and fy is not None, "one of both was sent"
    return Intrinsics(fx, fy, (width - 1) / 2, (height - 1) / 2, width, height)


def _angle(degrees: float) -> float:
    if not 0 < degrees < WIDEST_FOV:
        raise DepthError("intrinsics_fov")
    return degrees


def _side(value: float) -> int:
    if not math.isfinite(value) or value != int(value) or value < 1:
        raise DepthError("intrinsics_form")
    return int(value)


def _doubts(camera: Intrinsics) -> list[Note]:
    found = []
    correction = corrected_fy(camera)
    if correction is not None:
        sentence = (
            f"fy {camera.fy:g} follows from a vertical field of view of hfov x height / width, which is no "
            f"pinhole camera; OpenEQA's HM3D intrinsics are written so. Square pixels give "
            f"fx = fy = {correction.fx:g}, cx = {correction.cx:g}, cy = {correction.cy:g}: send these."
        )
        found.append(Note("maybe_wrong_fy", sentence))
    off = (
        abs(camera.cx - (camera.width - 1) / 2) / camera.width,
        abs(camera.cy - (camera.height - 1) / 2) / camera.height,
    )
    if max(off) > _OFF_CENTRE:
        sentence = (
            "The principal point is far from the middle of the picture. If the picture was resized after "
            "calibration, send the width and height that the intrinsics are for."
        )
        found.append(Note("maybe_other_size", sentence))
    return found


def corrected_fy(camera: Intrinsics) -> Intrinsics | None:
    """Return intrinsics with square pixels where fy was made of a vfov = hfov x height / width, else None.

    OpenEQA's HM3D episodes have fx 960 and fy 1141.73 at 1920 x 1080, of a renderer with square pixels.
    """
    if abs(camera.fy / camera.fx - 1) < _SQUARE:
        return None
    half = math.atan(camera.width / 2 / camera.fx) * camera.height / camera.width
    if abs(camera.fy / (camera.height / 2 / math.tan(half)) - 1) > _SAME:
        return None
    middle = (camera.width - 1) / 2, (camera.height - 1) / 2
    return Intrinsics(camera.fx, camera.fx, *middle, camera.width, camera.height)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
