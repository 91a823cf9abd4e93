"""Read binary PGM of 8 or 16 bits. Numbers are taken as they are, whatever the header calls the largest."""

import re

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

_START = 1024  # bytes in which the header with its comments must end
_NUMBER = re.compile(rb"(?:\s|#[^\n]*\n)+(\d{1,9})")
_LARGEST = 65_535


def is_pgm(data: bytes) -> bool:
    """Whether a file begins like a PGM, binary or plain."""
    return data[:2] in (b"P5", b"P2") and data[2:3].isspace()


def read_pgm(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] uint8 or uint16 values as a read-only view of `data`. Raises DepthError."""
    if data[:2] == b"P2":
        raise DepthError("pgm_plain")
    width, height, largest, start = _read_header(data[:_START])
    if width * height > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    dtype = np.dtype("u1") if largest < 256 else np.dtype(">u2")
    if len(data) - start != width * height * dtype.itemsize:
        raise DepthError("truncated")
    return np.frombuffer(data, dtype, offset=start).reshape(height, width)


def _read_header(head: bytes) -> tuple[int, int, int, int]:
    """Return width, height, the largest number and where the pixels start."""
    numbers, at = [], 2
    for _ in range(3):
        found = _NUMBER.match(head, at)
        if found is None:
            raise DepthError("pgm_header")
        numbers.append(int(found[1]))
        at = found.end()
    width, height, largest = numbers
    if not (width and height and 0 < largest <= _LARGEST and head[at : at + 1].isspace()):
        raise DepthError("pgm_header")
    return width, height, largest, at + 1
