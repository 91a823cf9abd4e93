"""Depth files made in memory, good and bad, for the tests of depth and of the service."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from depth import DepthMap, DepthReport, read_depth


def png16(values: ArrayLike) -> bytes:
    """Encode [H, W] integers as a 16-bit grey PNG."""
    return _png(np.asarray(values, dtype=np.uint16))


def png8(values: ArrayLike) -> bytes:
    """Encode [H, W] or [H, W, 3] as an 8-bit PNG."""
    return _png(np.asarray(values, dtype=np.uint8))


def jpeg(values: ArrayLike, **options: object) -> bytes:
    """Encode [H, W] or [H, W, 3] as a JPEG; options as Pillow takes them."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def npy(values: NDArray[np.generic]) -> bytes:
    """Encode an array as numpy itself does."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def npy_with_header(header: str, body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Write an NPY file with a header of one's own."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header.encode("latin-1") + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """Encode one PNG chunk with its right sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(
    width: int, height: int, pixels: bytes, *, bits: int = 16, colour: int = 0, extra: bytes = b""
) -> bytes:
    """Write a PNG whose header may promise other pixels than its stream holds; `extra` follows the header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def _png(values: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def decode_depth(data: bytes, **options: Any) -> DepthMap:
    """Read a depth file; options as `read_depth` takes them."""
    return read_depth(data, **options)[0]


def inspect_depth(data: bytes, **options: Any) -> DepthReport:
    """Say what a depth file is understood as; options as `read_depth` takes them."""
    return read_depth(data, **options)[1]
