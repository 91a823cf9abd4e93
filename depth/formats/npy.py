"""Read an NPY array from bytes: numpy parses the header, within bounds checked here; pickle is refused."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from depth.errors import DepthError

MAGIC = npy.MAGIC_PREFIX
MAX_HEADER_BYTES = 2048
_LONGEST_START = npy.MAGIC_LEN + 4  # bytes before the header: the magic number, the version and a length
LONGEST_HEAD = _LONGEST_START + MAX_HEADER_BYTES
_READERS: Mapping[tuple[int, int], Callable[..., Any]] = MappingProxyType(
    {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
        (3, 0): npy.read_array_header_2_0,  # differs in names of fields only, which are refused
    }
)
_SIZES = ("f2", "f4", "f8", "u2", "i2", "u4", "i4", "i8")
_DTYPES = (*(order + size for size in _SIZES for order in "<>"), "|u1")


@dataclass(frozen=True)
class NpyLayout:
    """Where the [height, width] values of an array are, and of which type."""

    height: int
    width: int
    is_fortran: bool
    dtype: np.dtype[np.generic]
    start: int

    @property
    def file_bytes(self) -> int:
        """Return the length of the whole file."""
        return self.start + self.height * self.width * self.dtype.itemsize


def read_npy(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return the [H, W] array that `data` holds, as a read-only view of `data`.

    Accepts floats of 2 to 8 bytes, integers of 2 to 8 of either byte order (not uint64) and uint8, in C or
    Fortran order, as [H, W] or with further axes of length 1: [H, W, 1], [1, H, W], [1, 1, H, W]. Raises
    DepthError.
    """
    return array_from(data, read_npy_header(data[:LONGEST_HEAD], max_pixels))


def read_npy_header(head: bytes, max_pixels: int) -> NpyLayout:
    """Read the header from the first LONGEST_HEAD bytes, and check it. Raises DepthError."""
    file = io.BytesIO(head)
    try:
        shape, is_fortran, dtype = _READERS[npy.read_magic(file)](file, MAX_HEADER_BYTES)
    except Exception:  # numpy raises many exceptions on damaged headers; a caller treats all alike
        raise DepthError("npy_header") from None
    if not all(type(side) is int and side > 0 for side in shape) or dtype.names:
        raise DepthError("npy_header")
    image = _image_shape(shape)
    if len(image) != 2:
        raise DepthError("npy_header")
    if dtype.str not in _DTYPES:
        raise DepthError("dtype")
    if math.prod(image) > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    return NpyLayout(*image, is_fortran, dtype, file.tell())


def array_from(data: bytes, layout: NpyLayout) -> NDArray[np.generic]:
    """Return the values as a read-only view of the whole file. Raises DepthError if any is missing."""
    if len(data) != layout.file_bytes:
        raise DepthError("truncated")
    order = "F" if layout.is_fortran else "C"
    values = np.frombuffer(data, layout.dtype, offset=layout.start)
    return values.reshape((layout.height, layout.width), order=order)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop axes of length 1 until two are left: the last one first, then those in front."""
    while len(shape) > 2 and 1 in shape:
        at = len(shape) - 1 if shape[-1] == 1 else shape.index(1)
        shape = shape[:at] + shape[at + 1 :]
    return shape
