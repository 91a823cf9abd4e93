"""Read depth maps of COLMAP: `width&height&channels&`, then float32 values row by row.

Their unit is that of the reconstruction, which is a metre only if the reconstruction was scaled to metres.
"""

import re

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

_HEADER = re.compile(rb"(\d{1,7})&(\d{1,7})&(\d{1,7})&")


def is_colmap(data: bytes) -> bool:
    """Whether a file begins like a map of COLMAP."""
    return _HEADER.match(data[:32]) is not None


def read_colmap(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] float32 values as a read-only view of `data`. Raises DepthError."""
    header = _HEADER.match(data[:32])
    assert header is not None, "is_colmap was asked"
    width, height, channels = (int(number) for number in header.groups())
    if channels != 1:
        raise DepthError("channels")  # of normals, three
    if not width or not height:
        raise DepthError("truncated")
    if width * height > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    if len(data) - header.end() != 4 * width * height:
        raise DepthError("truncated")
    return np.frombuffer(data, "<f4", offset=header.end()).reshape(height, width)
