"""Where the patches of a view are: one point each, in camera axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth.codes import WHOLE, Box
from depth.depth_map import DepthMap
from depth.geometry.camera import Intrinsics

MIN_VALID = 0.25
"""Share of the pixels of a patch that must be valid for it to have a point."""
MAX_RANGE_M = 20.0
"""Farther things have no point: their depth is too uncertain, and they do not lie in a room."""
_EDGE_M, _EDGE_SHARE = 0.2, 0.05
"""A patch is an edge where depths differ by more than this many metres, and this share of the depth."""
_MOST_SAMPLES = 16
"""Along each axis of a patch; of larger patches every n-th row and column is looked at."""


@dataclass(frozen=True)
class PatchGrid:
    """Describe the patches of a view.

    grid: (rows, columns). patch_px, view_px: (height, width) in px of one patch, and of the whole view, of
    which rows and columns may be left over. box: the part of the picture that the view shows.
    """

    grid: tuple[int, int]
    patch_px: tuple[int, int]
    view_px: tuple[int, int]
    box: Box = WHOLE

    def edges(self, axis: int) -> NDArray[np.float64]:
        """Return the edges of the patches along an axis (0: down) as fractions of the picture: [n + 1]."""
        low, high = self.box[1 - axis], self.box[3 - axis]
        ends = np.arange(self.grid[axis] + 1) * self.patch_px[axis] / self.view_px[axis]
        return low + ends * (high - low)


@dataclass(frozen=True, eq=False)
class PatchPoints:
    """Hold points [P, 3] float32 in camera axes, metres, NaN where a patch has none; is_edge bool [P]."""

    points: NDArray[np.float32]
    is_edge: NDArray[np.bool_]

    @property
    def has_point(self) -> NDArray[np.bool_]:
        """Return which patches have a point: bool [P]."""
        return np.isfinite(self.points[:, 2])


def metres(depth: DepthMap) -> NDArray[np.float32] | None:
    """Return depth in metres, NaN where invalid: [H, W]; None for depth without a unit."""
    if depth.unit is None:
        return None
    values = np.where(depth.valid, depth.values, np.nan)
    if depth.kind == "inverse":
        with np.errstate(divide="ignore"):
            values = np.where(values > 0, 1 / values, np.nan)
    return values.astype(np.float32)


def patch_points(depth: DepthMap, camera: Intrinsics, patches: PatchGrid) -> PatchPoints:
    """Return the point of every patch: the median of its valid depth, at the patch's centre.

    camera: intrinsics of the depth map, whose size may differ from the picture's; both show the same view.
    A mean would put an edge between things into thin air. A patch has no point where less than a quarter of
    it is valid (what lies beyond the picture is not), beyond MAX_RANGE_M, and in depth without a unit.
    """
    rows, columns = patches.grid
    z = metres(depth)
    if z is None:
        return PatchPoints(np.full((rows * columns, 3), np.nan, np.float32), np.zeros(rows * columns, bool))
    down, across = patches.edges(0), patches.edges(1)
    samples = _samples(z, down * depth.shape[0], across * depth.shape[1])
    count = np.count_nonzero(np.isfinite(samples), axis=1)
    samples.sort(axis=1)  # NaN last
    middle = (_rank(samples, (count - 1) // 2) + _rank(samples, count // 2)) / 2
    spread = _rank(samples, (9 * count) // 10) - _rank(samples, count // 10)
    is_placed = (count >= MIN_VALID * samples.shape[1]) & (count > 0) & (middle <= MAX_RANGE_M)
    middle = np.where(is_placed, middle, np.nan).astype(np.float64)
    v = (down[:-1] + down[1:]) / 2 * depth.shape[0] - 0.5
    u = (across[:-1] + across[1:]) / 2 * depth.shape[1] - 0.5
    points = camera.points(np.tile(u, rows), np.repeat(v, columns), middle)
    is_edge = is_placed & (spread > np.maximum(_EDGE_M, _EDGE_SHARE * middle))
    return PatchPoints(points.astype(np.float32), is_edge)


def _samples(
    z: NDArray[np.float32], down: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the depths in each patch: [P, n], NaN where invalid or beyond the picture."""
    row, column = _pixels(down, z.shape[0]), _pixels(across, z.shape[1])
    padded = np.pad(z, ((0, 1), (0, 1)), constant_values=np.nan)  # the last row and column: beyond
    values = padded[row[:, None, :, None], column[None, :, None, :]]
    return values.reshape(len(row) * len(column), -1)


def _pixels(edges: NDArray[np.float64], side: int) -> NDArray[np.intp]:
    """Return the pixels of each patch along an axis: [patches, n], `side` for those beyond the picture.

    A pixel belongs to the patch that holds its centre. Patches of fewer pixels than others repeat some, and
    where a patch has none, it takes the pixel that holds its centre.
    """
    length = float(np.diff(edges).mean())
    number = min(max(1, round(length)), _MOST_SAMPLES)
    at = edges[:-1, None] + (np.arange(number) + 0.5) / number * np.diff(edges)[:, None]
    pixel = np.floor(at).astype(np.intp)
    return np.where((pixel >= 0) & (pixel < side), pixel, side)


def _rank(ordered: NDArray[Any], rank: NDArray[np.intp]) -> NDArray[Any]:
    at = np.clip(rank, 0, ordered.shape[1] - 1)
    return np.take_along_axis(ordered, at[:, None], axis=1)[:, 0]
