"""Read an NPY array from bytes: numpy parses the header, within bounds checked here; pickle is refused."""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from depth.errors import DepthError

MAGIC = npy.MAGIC_PREFIX
MAX_HEADER_BYTES = 2048
_LONGEST_START = npy.MAGIC_LEN + 4  # bytes before the header: the magic number, the version and a length
_READERS: Mapping[tuple[int, int], Callable[..., Any]] = MappingProxyType(
    {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
        (3, 0): npy.read_array_header_2_0,  # differs in names of fields only, which are refused
    }
)
_DTYPES = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "<u2", ">u2", "<i4", ">i4", "|u1")


def read_npy(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return the [H, W] array that `data` holds, as a read-only view of `data`.

    Accepts f2 f4 f8 u2 i4 of either byte order and u1, in C or Fortran order, as [H, W], [H, W, 1] (Habitat)
    or [1, H, W]. Raises DepthError.
    """
    shape, is_fortran, dtype, start = _read_header(data)
    height, width = _image_shape(shape)
    if height * width > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    if len(data) - start != height * width * dtype.itemsize:
        raise DepthError("truncated")
    order = "F" if is_fortran else "C"
    return np.frombuffer(data, dtype, offset=start).reshape((height, width), order=order)


def _read_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Return shape, whether in Fortran order, type, and where the numbers start."""
    file = io.BytesIO(data[: _LONGEST_START + MAX_HEADER_BYTES])
    try:
        shape, is_fortran, dtype = _READERS[npy.read_magic(file)](file, MAX_HEADER_BYTES)
    except Exception:  # numpy raises many exceptions on damaged headers; a caller treats all alike
        raise DepthError("npy_header") from None
    is_image = all(type(side) is int and side > 0 for side in shape) and len(_image_shape(shape)) == 2
    if dtype.names or not is_image:
        raise DepthError("npy_header")
    if dtype.str not in _DTYPES:
        raise DepthError("dtype")
    return shape, is_fortran, dtype, file.tell()


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop a channel axis of length 1, last or first."""
    if len(shape) == 3 and shape[2] == 1:
        return shape[:2]
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
