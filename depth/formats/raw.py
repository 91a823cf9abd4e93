"""Read numbers without any header, whose width and height the caller says."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

_SHAPE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})", re.I | re.A)
TYPES: Mapping[int, str] = MappingProxyType({1: "<u1", 2: "<u2", 4: "<f4", 8: "<f8"})


def parse_shape(text: str) -> tuple[int, int]:
    """Return (width, height) of "WxH". Raises DepthError."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise DepthError("shape")
    return int(found[1]), int(found[2])


def read_raw(data: bytes, max_pixels: int, shape: tuple[int, int]) -> NDArray[np.generic]:
    """Return [H, W] little-endian values as a read-only view of `data`; their length says their type.

    1, 2, 4 and 8 bytes are uint8, uint16, float32 and float64. `shape` is (width, height). Raises DepthError.
    """
    width, height = shape
    if width * height > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    size, rest = divmod(len(data), width * height)
    if rest or size not in TYPES:
        raise DepthError("raw_size")
    return np.frombuffer(data, TYPES[size]).reshape(height, width)
