"""Estimate the noise of a picture from its pixels, after Immerkaer (CVIU 1996), robustly.

What is left of two second differences, across and down, is noise where the picture is smooth; the median
keeps edges and single dead pixels out of it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

MOST_PX = 1024
"""Side of the middle that is looked at: enough for any picture, at a millisecond or ten."""
_PER_SIGMA = 6 * 0.6745  # the mask's norm is 6, and half of a Gaussian is within 0.6745 sigma


def noise_of(image: Image.Image) -> float:
    """Return the standard deviation of the noise of a picture, in grey values of 255.

    A picture of less than 3 pixels a side has none that could be seen.
    """
    width, height = image.size
    left, top = max(0, width - MOST_PX) // 2, max(0, height - MOST_PX) // 2
    middle = image.crop((left, top, min(width, left + MOST_PX), min(height, top + MOST_PX)))
    grey = np.asarray(middle.convert("RGB"), np.float32).mean(axis=2)
    if min(grey.shape) < 3:
        return 0.0
    twice = np.diff(np.diff(grey, n=2, axis=0), n=2, axis=1)
    return float(np.median(np.abs(twice)) / _PER_SIGMA)
