"""Read an NPY array from bytes with a header gate of our own: never pickle, never `np.load`."""

import ast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 2048
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_DTYPES = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "<u2", ">u2", "<i4", ">i4", "|u1")


def read_npy(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return the [H, W] array that `data` holds, as a read-only view of `data`.

    Accepts f2 f4 f8 u2 i4 of either byte order and u1, in C or Fortran order, as [H, W], [H, W, 1] (Habitat)
    or [1, H, W]. Raises DepthError.
    """
    header, start = _read_header(data)
    (height, width), dtype = _image_shape(header["shape"]), np.dtype(header["descr"])
    if height * width > max_pixels:
        raise DepthError("too_large")
    if len(data) - start != height * width * dtype.itemsize:
        raise DepthError("truncated")
    order = "F" if header["fortran_order"] else "C"
    return np.frombuffer(data, dtype, offset=start).reshape((height, width), order=order)


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    length_bytes = _LENGTH_BYTES.get(tuple(data[6:8]))  # type: ignore[arg-type]
    if not data.startswith(MAGIC) or length_bytes is None:
        raise DepthError("npy_header")
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    if end - start > MAX_HEADER_BYTES or end > len(data):
        raise DepthError("npy_header")
    header = _parse(data[start:end])
    if not _is_image(header):
        raise DepthError("npy_header")
    if header["descr"] not in _DTYPES:
        raise DepthError("dtype")
    return header, end


def _parse(raw: bytes) -> Any:
    try:
        return ast.literal_eval(raw.decode("ascii").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise DepthError("npy_header") from None


def _is_image(header: Any) -> bool:
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        return False
    shape = header["shape"]
    return (
        isinstance(header["descr"], str)
        and isinstance(header["fortran_order"], bool)
        and isinstance(shape, tuple)
        and all(type(side) is int and side > 0 for side in shape)
        and len(_image_shape(shape)) == 2
    )


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the one channel that some write, last or first."""
    if len(shape) == 3 and shape[2] == 1:
        return shape[:2]
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
