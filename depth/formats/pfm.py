"""Read PFM: floats with a short header of text, rows from the bottom to the top."""

import re

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

_HEADER = re.compile(rb"P([Ff])\s{1,4}(\d{1,9})\s{1,4}(\d{1,9})\s{1,4}([-+]?[0-9.eE+-]{1,24})(?:\r\n|\s)")


def is_pfm(data: bytes) -> bool:
    """Whether a file begins like a PFM, of one channel or of three."""
    return data[:2] in (b"Pf", b"PF") and data[2:3].isspace()


def read_pfm(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] float32 values, the top row first, as a read-only view of `data`.

    The sign of the header's scale is the byte order; its size is not applied, as in most readers. Raises
    DepthError.
    """
    header = _HEADER.match(data[:80])
    if header is None:
        raise DepthError("pfm_header")
    if header[1] == b"F":
        raise DepthError("channels")
    width, height = int(header[2]), int(header[3])
    if not width or not height:
        raise DepthError("pfm_header")
    if width * height > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    if len(data) - header.end() != 4 * width * height:
        raise DepthError("truncated")
    dtype = "<f4" if header[4].startswith(b"-") else ">f4"
    return np.frombuffer(data, dtype, offset=header.end()).reshape(height, width)[::-1]
