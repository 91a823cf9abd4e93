"""What the rest of the program calls depth: values, their kind and unit, and which pixels can be trusted.

It does not know files, images or patches.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

NEAR_M, FAR_M = 1e-9, 1e9
"""Metric values outside are no distance (0 is a hole, 1e10 a renderer's background); keeps 1/depth finite."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Hold the depth of one view.

    values [H, W] float32, 0 where invalid; valid [H, W] bool. `metric` and `relative` grow with distance,
    `inverse` grows towards the camera. `unit` is "m" for metric depth and None otherwise.
    """

    values: NDArray[np.float32]
    kind: Literal["metric", "relative", "inverse"]
    unit: Literal["m"] | None
    valid: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def valid_ratio(self) -> float:
        """Return the share of valid pixels, 0 to 1."""
        return float(self.valid.mean())


def metric_depth(metres: NDArray[np.floating]) -> DepthMap:
    """Mask a [H, W] map in metres: 0, negative, NaN, infinite and >= 1e9 (or <= 1e-9) are invalid.

    Raises DepthError if nothing valid is left.
    """
    valid = (metres > NEAR_M) & (metres < FAR_M)
    if not valid.any():
        raise DepthError("all_invalid")
    return DepthMap(np.where(valid, metres, 0).astype(np.float32), "metric", "m", valid)
