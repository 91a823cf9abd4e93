"""From what a program has, a path, bytes, an array or a Pillow image, to the bytes of a file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from tosa_vqa_client.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

Image: TypeAlias = "bytes | str | os.PathLike[str] | IO[bytes] | np.ndarray[Any, Any] | PillowImage"
"""A file (its path, its bytes, or open for reading), an array of uint8 in RGB order, or a Pillow image."""
Depth: TypeAlias = "bytes | str | os.PathLike[str] | IO[bytes] | np.ndarray[Any, Any] | PillowImage"
"""A depth file like an image, or an array [height, width] of integers (millimetres) or floats (metres)."""

_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
_FAST = 1
"""zlib's fastest level: a camera frame takes milliseconds."""


def image_file(image: Image) -> bytes:
    """Return the bytes of an image file. Raises BadInput, and OSError for a path."""
    data = _file(image)
    if data is not None:
        return data
    if _is_pillow(image):
        return _saved(image, "PNG")
    return _png(_array(image, "an image"))


def depth_file(depth: Depth) -> bytes:
    """Return the bytes of a depth file; arrays become NPY, so that no number changes. Raises BadInput."""
    data = _file(depth)
    if data is not None:
        return data
    if _is_pillow(depth) and getattr(depth, "mode", "") in ("L", "I;16"):
        return _saved(depth, "PNG")
    return _npy(_array(depth, "depth"))


def several(files: Any) -> Sequence[Any]:
    """Return a list or tuple as it is, and anything else as the only one."""
    return files if isinstance(files, list | tuple) else (files,)


def _file(source: Any) -> bytes | None:
    """Return the bytes of a path, of an open file, or bytes as they are; None for anything else."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read()
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise BadInput("open the file in binary mode: open(path, 'rb')")
        return data
    return None


def _is_pillow(source: Any) -> bool:
    return hasattr(source, "save") and hasattr(source, "getbands")


def _saved(image: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, compress_level=_FAST)
    return buffer.getvalue()


def _array(source: Any, what: str) -> np.ndarray[Any, Any]:
    if not (hasattr(source, "__array__") or hasattr(source, "__array_interface__")):
        kind = type(source).__name__
        raise BadInput(f"{what} is a path, bytes, an open file, an array or a Pillow image, not {kind}")
    import numpy

    return numpy.asarray(source)


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Write uint8 pixels [height, width] or [height, width, channels] as PNG."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype.name != "uint8" or pixels.ndim not in (2, 3) or channels not in _PNG_COLOURS:
        shape = " x ".join(map(str, pixels.shape))
        raise BadInput(
            f"an image array is uint8, height x width x 3 in RGB order, and this is {pixels.dtype} of {shape}"
        )
    height, width = pixels.shape[:2]
    row_bytes, data = width * channels, pixels.tobytes()
    rows = (data[at : at + row_bytes] for at in range(0, len(data), row_bytes))
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOURS[channels], 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows), _FAST)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _npy(values: np.ndarray[Any, Any]) -> bytes:
    import numpy

    if values.dtype.kind not in "uif" or values.ndim != 2:
        shape = " x ".join(map(str, values.shape))
        raise BadInput(
            f"a depth array is height x width of integers or floats, not {values.dtype} of {shape}"
        )
    buffer = io.BytesIO()
    numpy.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
