"""A depth map: values, their kind and unit, and which pixels are valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.presets import Kind

NEAR_M, FAR_M = 1e-9, 1e9
"""Metric values outside are invalid (0 is a hole, 1e10 a renderer's background); keeps 1/depth finite."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Hold the depth of one view.

    values [H, W] float32, 0 where invalid; valid [H, W] bool. `metric` and `relative` grow with distance,
    `inverse` grows towards the camera. `unit` is "m" for metric depth, "1/m" for inverse depth of known
    scale, and None otherwise.
    """

    values: NDArray[np.float32]
    kind: Kind
    unit: Literal["m", "1/m"] | None
    valid: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def valid_ratio(self) -> float:
        """Return the share of valid pixels, 0 to 1."""
        return np.count_nonzero(self.valid) / self.valid.size

    @property
    def valid_values(self) -> NDArray[np.float32]:
        """Return the [n] values of valid pixels, row by row."""
        return self.values.ravel() if self.valid.all() else self.values[self.valid]


def metric_depth(metres: NDArray[np.generic]) -> DepthMap:
    """Mask a [H, W] map in metres: 0, negative, NaN, infinite and >= 1e9 (or <= 1e-9) are invalid.

    Raises DepthError if nothing valid is left.
    """
    return masked_depth(metres, "metric", 1.0)


def masked_depth(
    raw: NDArray[np.generic],
    kind: Kind,
    units_per_metre: float | None = None,
    invalid: Sequence[float] = (),
) -> DepthMap:
    """Scale and mask a [H, W] array: value / units_per_metre, in float64 and rounded once to float32.

    Negative, NaN, infinite and >= 1e9 are invalid, and what equals one of `invalid` before scaling. 0 is
    invalid in metric depth only: in inverse depth it is infinitely far, in relative one end of the order.
    Raises DepthError if nothing valid is left.
    """
    values = np.empty(raw.shape, np.float32)
    with np.errstate(all="ignore"):  # what overflows or is NaN here is masked below
        np.divide(raw, units_per_metre or 1.0, out=values, dtype=np.float64, casting="same_kind")
    nearest = values > NEAR_M if kind == "metric" else values >= 0
    valid = nearest & (values < FAR_M)
    for hole in invalid:
        valid &= _differs(raw, hole)
    if not valid.any():
        raise DepthError("all_invalid")
    values[~valid] = 0
    unit = {"metric": "m", "inverse": "1/m"}.get(kind) if units_per_metre else None
    return DepthMap(values, kind, unit, valid)  # type: ignore[arg-type]


def _differs(raw: NDArray[np.generic], hole: float) -> NDArray[np.bool_] | np.bool_:
    """Compare in the array's own type: 0.1 in float32 is not 0.1 in float64."""
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return raw != np.asarray(hole).astype(raw.dtype)
    limits = np.iinfo(raw.dtype.name)
    if not float(hole).is_integer() or not limits.min <= hole <= limits.max:
        return np.True_
    return raw != int(hole)
