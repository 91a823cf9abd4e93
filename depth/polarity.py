"""Guess which end of an 8-bit grey depth image is near; an image and its negative give the same map.

Merging does not depend on the guess; rendered depth maps do.
"""

import numpy as np

from depth.depth_format import Assumption
from depth.depth_map import DepthMap

WHITE = 255


def growing_with_distance(depth: DepthMap) -> tuple[DepthMap, bool, Assumption]:
    """Return relative depth of 8 bits so that it grows with distance: what stands lower in a view is nearer.

    The second value says whether the numbers were turned, v to 255 - v. An image and its negative give the
    same map.
    """
    bright_is_near = _lower_is_brighter(depth)
    ends = "bright was taken as near" if bright_is_near else "dark was taken as near"
    sentence = f"By the brightness of the lower half {ends}; merging is the same either way."
    assumption = Assumption("polarity", sentence)
    if not bright_is_near:
        return depth, False, assumption
    values = np.where(depth.valid, WHITE - depth.values, 0).astype(np.float32)
    return DepthMap(values, depth.kind, depth.unit, depth.valid), True, assumption


def _lower_is_brighter(depth: DepthMap) -> bool:
    """Weigh rows from -(H-1) to H-1; integers add up exactly in float64, so the negative's is the opposite.

    Brightness is twice the value less 255, which is odd: where the rows balance, the first pixel decides.
    """
    brightness = 2 * depth.values.sum(axis=1, dtype=np.float64) - WHITE * depth.valid.sum(axis=1)
    rows = depth.shape[0]
    balance = float((brightness * (2 * np.arange(rows) - (rows - 1))).sum())
    first = float(depth.values.flat[depth.valid.argmax()])
    return (balance or 2 * first - WHITE) > 0
