"""Read compressedDepth messages of ROS: a header of 12 bytes, then a PNG.

16UC1 holds the sensor's own integers. 32FC1 holds quantised inverse depth: metres are a / (number - b), with
a and b in the header. Both are 0 or left unset in the header of 16UC1.
"""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.formats import png
from depth.formats.grey import read_grey

_HEADER = struct.Struct("<iff")  # format, a, b
_FARTHEST_M = (0.01, 1e5)  # for which a publisher can have been set up


def is_compressed_depth(data: bytes) -> bool:
    """Whether a PNG stands behind a header of 12 bytes."""
    return data.startswith(png.SIGNATURE, _HEADER.size)


def is_rvl(data: bytes) -> bool:
    """Whether a file may be a compressedDepth message in RVL: a header, then width and height."""
    if len(data) < _HEADER.size + 8 or data[:4] != bytes(4):
        return False
    return all(16 <= side <= 8192 for side in struct.unpack_from("<ii", data, _HEADER.size))


def read_compressed_depth(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] integers of 16UC1, or float32 metres of 32FC1 with 0 for holes. Raises DepthError."""
    _, a, b = _HEADER.unpack_from(data)
    numbers = read_grey(data[_HEADER.size :], max_pixels)
    if numbers.dtype != np.uint16:
        raise DepthError("dtype")
    if not _is_quantised(a, b):
        return numbers
    codes = numbers.astype(np.float64)
    return np.divide(a, codes - b, out=np.zeros_like(codes), where=codes > 0).astype(np.float32)


def _is_quantised(a: float, b: float) -> bool:
    """Whether the numbers are a and b of some farthest distance; 1 stands for that distance."""
    if not (math.isfinite(a) and math.isfinite(b) and a > 0 and b < 1):
        return False
    return _FARTHEST_M[0] <= a / (1 - b) <= _FARTHEST_M[1]
