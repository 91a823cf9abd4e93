"""Evidence in the pixels of 8-bit depth: whether 0 is a hole, and whether far distances were clipped.

Both look at every n-th row only, so that large maps take little longer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

LARGEST = 255
_SAMPLE_ROWS = 256
_FEWEST_LEVELS = 4
"""Different values beside holes; with fewer there is too little to judge by."""
_SKY_SHARE, _RAGGED = 0.9, 0.05
"""A sky: this share of all zeros hangs from the top, and its lower edge moves by this share of the height."""
_AT_ENDS, _AT_TOP = 0.9, 0.1
"""Shares of pixels at both ends of the range, and at its top, that leave nothing of the distances."""


@dataclass(frozen=True)
class _Thresholds:
    """What speaks for holes.

    rank: of the middle of what lies beside zeros, among all other values; half of it suffices where that
    middle is lifted from their low end. spike: zeros for each pixel of a value right above them. zero: the
    largest value that counts as 0. apart: how many pixels away values are beside it, since JPEG smears edges.
    """

    rank: float
    spike: float
    zero: int
    apart: int


_EXACT, _SMEARED = _Thresholds(0.25, 8, 0, 1), _Thresholds(0.3, 10, 4, 8)
_LIFT, _ENDS = 0.25, (0.05, 0.95)
"""A share of the range of the values, and the shares of values that lie below its ends."""


def hole_values(pixels: NDArray[np.generic], *, is_lossy: bool) -> range | None:
    """Return the values that mean no reading in [H, W] uint8 that is not metric, 0 first; None without zeros.

    Empty if 0 is one end of the order. Zeros are holes if they are far more than the values right above them,
    and what lies beside them is of any size: as one end of the order they lie beside values near that end. A
    ragged region that hangs from the top is a sky. A lossy file has holes of small values, too.
    """
    rows = pixels[:: -(-pixels.shape[0] // _SAMPLE_ROWS)].astype(np.uint8, copy=False)
    thresholds = _SMEARED if is_lossy else _EXACT
    counts = np.bincount(rows.ravel(), minlength=LARGEST + 1)
    if counts[: thresholds.zero + 1].sum() == 0:
        return None
    if not _are_holes(rows, counts, thresholds):
        return range(0)
    return range(1 + (_smear(counts) if is_lossy else 0))


def check_saturation(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> None:
    """Refuse uint8 values that sit at the top of the range or at both ends. Raises DepthError (saturated)."""
    step = -(-pixels.shape[0] // _SAMPLE_ROWS)
    values = pixels[::step].astype(np.uint8, copy=False)[valid[::step]]
    if values.size == 0:
        return
    top = np.count_nonzero(values >= LARGEST - _SMEARED.zero) / values.size
    bottom = np.count_nonzero(values <= _SMEARED.zero) / values.size
    if top >= _AT_TOP and top + bottom >= _AT_ENDS:
        raise DepthError("saturated")


def _are_holes(rows: NDArray[np.uint8], counts: NDArray[np.int64], thresholds: _Thresholds) -> bool:
    others = counts[thresholds.zero + 1 :]
    if np.count_nonzero(others) < _FEWEST_LEVELS:
        return False
    spike = counts[: thresholds.zero + 1].sum() / max(1.0, float(others[:5].mean()))
    is_zero = rows <= thresholds.zero
    beside = _beside(rows, is_zero, thresholds.apart)
    if spike < thresholds.spike or beside.size == 0 or _is_sky(is_zero):
        return False
    up_to = np.cumsum(others)
    steps = np.median(beside) - thresholds.zero - 1
    rank = (up_to - others / 2)[int(steps)] / up_to[-1]
    low, high = np.searchsorted(up_to, np.multiply(_ENDS, up_to[-1]))
    is_lifted = steps - low > _LIFT * (high - low)
    return bool(rank > (thresholds.rank / 2 if is_lifted else thresholds.rank))


def _beside(rows: NDArray[np.uint8], is_zero: NDArray[np.bool_], apart: int) -> NDArray[np.uint8]:
    """Return the values that stand so many pixels beside a zero, or in the next row."""
    across, down = is_zero[:, apart:] != is_zero[:, :-apart], is_zero[apart:] != is_zero[:-apart]
    return np.concatenate(
        [
            np.maximum(rows[:, apart:], rows[:, :-apart])[across],
            np.maximum(rows[apart:], rows[:-apart])[down],
        ]
    )


def _is_sky(is_zero: NDArray[np.bool_]) -> bool:
    """Whether the zeros hang from the top with a ragged edge; whole columns and straight bands are no sky."""
    columns = is_zero[:, ~is_zero.all(axis=0)]
    if not columns.size:
        return False
    depths = np.where(columns.any(axis=0), columns.argmin(axis=0), 0)
    total = np.count_nonzero(columns)
    return depths.sum() > _SKY_SHARE * total and np.ptp(depths) > _RAGGED * len(is_zero)


def _smear(counts: NDArray[np.int64]) -> int:
    """Return the value up to which JPEG may have smeared holes: half of what nearly all readings exceed."""
    readings = np.cumsum(counts[_SMEARED.zero + 1 :])
    low = _SMEARED.zero + 1 + int(np.searchsorted(readings, 0.05 * readings[-1]))
    return max(_SMEARED.zero, low // 2)
