"""Read a float NPY array from bytes with a header gate of our own: never pickle, never `np.load`."""

import ast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 2048
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_DTYPES = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")


def read_npy(data: bytes, max_pixels: int) -> NDArray[np.floating]:
    """Return the [H, W] array that `data` holds, as a read-only view of `data`.

    Accepts float16, float32 and float64 of either byte order in C or Fortran order. Raises DepthError.
    """
    header, start = _read_header(data)
    shape, dtype = header["shape"], np.dtype(header["descr"])
    if shape[0] * shape[1] > max_pixels:
        raise DepthError("too_large")
    if len(data) - start != shape[0] * shape[1] * dtype.itemsize:
        raise DepthError("truncated")
    order = "F" if header["fortran_order"] else "C"
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order=order)


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    length_bytes = _LENGTH_BYTES.get(tuple(data[6:8]))  # type: ignore[arg-type]
    if not data.startswith(MAGIC) or length_bytes is None:
        raise DepthError("npy_header")
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    if end - start > MAX_HEADER_BYTES or end > len(data):
        raise DepthError("npy_header")
    header = _parse(data[start:end])
    if not _is_float_image(header):
        raise DepthError("npy_header")
    return header, end


def _parse(raw: bytes) -> Any:
    try:
        return ast.literal_eval(raw.decode("ascii").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise DepthError("npy_header") from None


def _is_float_image(header: Any) -> bool:
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        return False
    shape = header["shape"]
    return (
        header["descr"] in _DTYPES
        and isinstance(header["fortran_order"], bool)
        and isinstance(shape, tuple)
        and len(shape) == 2
        and all(type(side) is int and side > 0 for side in shape)
    )
