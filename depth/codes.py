"""Canonical depth codes: the same small integers per patch, whatever the depth came from.

Inverse depth gives near distances more levels; percentiles keep one far or wrong pixel from stretching the
range.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depth.depth_map import DepthMap
from depth.errors import DepthError

PERCENTILES = (2.0, 98.0)
PERCENTILE_SAMPLE = 1 << 16
ASPECT_TOLERANCE = 0.02
_EDGE = 1e-6  # in bins: values this near to an edge count as on it, whichever way they were rounded


def check_alignment(depth: DepthMap, image_shape: tuple[int, int]) -> None:
    """Check that a depth map and an image of (height, width) show the same view: aspect ratios within 2 %.

    Resolutions may differ. Raises DepthError with code depth_shape_mismatch.
    """
    (height, width), (image_height, image_width) = depth.shape, image_shape
    aspect_quotient = (width * image_height) / (height * image_width)
    if max(aspect_quotient, 1 / aspect_quotient) > 1 + ASPECT_TOLERANCE:
        raise DepthError("aspect")


# Left, top, right and bottom of a part of a picture, as fractions of its sides; padding is outside of it.
Box = tuple[float, float, float, float]


WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def depth_codes(depth: DepthMap, grid: tuple[int, int], levels: int, box: Box = WHOLE) -> Tensor:
    """Return one code per patch, int64 [h, w] in 0..levels-1; near is high.

    Inverse depth, scaled from its 2nd to its 98th percentile over valid pixels; a patch is the mean over its
    valid pixels. Relative depth has no unit to invert by: its order is reversed, the spacing kept. A
    patch without a valid pixel gets the code of the median patch, never an invented extreme. A flat map gets
    code 0 everywhere. The percentiles of a large map come from every n-th valid pixel. A map and its negative
    get mirrored codes, exactly (or one code for all patches).
    box: the part of the picture that the grid shows. The range is that of the whole map, so that the codes of
    all parts compare; patches beyond the picture have no valid pixel.
    """
    near = proximity(depth)
    low, high = robust_range(near[depth.valid])
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return torch.zeros(grid, dtype=torch.int64)
    near, valid = _cut(near, box), _cut(depth.valid, box)
    if not valid.any():
        return torch.zeros(grid, dtype=torch.int64)
    patches = _masked_patch_mean(near, valid, grid)
    patches = np.where(np.isnan(patches), np.nanmedian(patches), patches)
    from_middle = (patches - (low + high) / 2) / (high - low) * levels
    return torch.from_numpy(_bins(from_middle, levels))


def patch_means(depth: DepthMap, grid: tuple[int, int], box: Box = WHOLE) -> NDArray[np.float64]:
    """Return the mean over the valid pixels of each patch, [h, w] in the unit of the map, NaN without any.

    box: the part of the picture that the grid shows.
    """
    return _masked_patch_mean(_cut(depth.values, box), _cut(depth.valid, box), grid)


def _bins(from_middle: NDArray[np.float64], levels: int) -> NDArray[np.int64]:
    """Number the bins 0..levels-1 of values given in bins from the middle of the range.

    An edge belongs to the bin nearer to the middle, and an edge in the middle itself to the side of the first
    value that lies beside it: so negating all values mirrors all codes, and rounding cannot decide one.
    """
    side = np.sign(from_middle) * (np.abs(from_middle) > _EDGE)
    beside = side[side != 0]
    side[side == 0] = -beside[0] if beside.size else 0
    codes = np.floor(from_middle - side * _EDGE + levels / 2)
    return codes.clip(0, levels - 1).astype(np.int64)


def robust_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the 2nd and 98th percentile of values [n], n >= 1; of many values, of every n-th."""
    step = -(-values.size // PERCENTILE_SAMPLE)
    low, high = np.percentile(values[::step], PERCENTILES)
    return float(low), float(high)


def proximity(depth: DepthMap) -> NDArray[np.float32]:
    """Return [H, W] values that grow towards the camera; 0 where invalid. Of metric depth, 1/m."""
    if depth.kind == "inverse":
        return depth.values
    if depth.kind == "relative":
        return -depth.values
    return np.divide(1, depth.values, out=np.zeros_like(depth.values), where=depth.valid)


def _cut(values: NDArray[Any], box: Box) -> NDArray[Any]:
    """Cut a box out of [H, W], with zeros beyond its edges; at least one pixel."""
    if box == WHOLE:
        return values
    (height, width), (left, top, right, bottom) = values.shape, box
    rows, columns = _span(top, bottom, height), _span(left, right, width)
    inside = values[slice(*np.clip(rows, 0, height)), slice(*np.clip(columns, 0, width))]
    beyond = [
        (max(0, min(stop, 0) - start), max(0, stop - max(start, length)))
        for (start, stop), length in ((rows, height), (columns, width))
    ]
    return np.pad(inside, beyond)


def _span(start: float, stop: float, length: int) -> tuple[int, int]:
    first = round(start * length)
    return first, max(round(stop * length), first + 1)


def _masked_patch_mean(
    values: NDArray[np.float32], valid: NDArray[np.bool_], grid: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the [h, w] mean over valid pixels, NaN for a patch without any. Invalid values must be 0."""
    total, count = _patch_sum(values, grid), _patch_sum(valid, grid)
    return np.divide(total, count, out=np.full(grid, np.nan), where=count > 0)


def _patch_sum(values: NDArray[np.generic], grid: tuple[int, int]) -> NDArray[np.float64]:
    # Patch i covers rows i*H//h .. (i+1)*H//h - 1. Where the map is coarser than the grid the starts repeat
    # and reduceat returns the one pixel there, which is nearest-neighbour enlargement.
    rows = np.arange(grid[0]) * values.shape[0] // grid[0]
    columns = np.arange(grid[1]) * values.shape[1] // grid[1]
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.float64), columns, axis=1)
