"""Depth files of the formats beyond PNG, JPEG, TIFF and NPY, written as their own software writes them."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.depth.files import png8, png16

QUANTISATION, FARTHEST_M = 100.0, 10.0  # what ROS sets if nobody else does


def npz(compressed: bool = False, **arrays: NDArray[Any]) -> bytes:
    """Archive arrays as numpy does."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def pfm(values: NDArray[Any], order: str = "<", scale: float = 1.0) -> bytes:
    """Write float32 [H, W] from the bottom row up."""
    sign = -scale if order == "<" else scale
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{sign}\n".encode()
    return head + values[::-1].astype(f"{order}f4").tobytes()


def pgm(values: NDArray[Any], comment: str = "") -> bytes:
    """Write uint8 or uint16 [H, W], high bytes first."""
    largest = np.iinfo(values.dtype).max
    head = f"P5\n{comment}{values.shape[1]} {values.shape[0]}\n{largest}\n".encode()
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def colmap(values: NDArray[Any]) -> bytes:
    """Write float32 [H, W] row by row behind width&height&channels&."""
    return f"{values.shape[1]}&{values.shape[0]}&1&".encode() + values.astype("<f4").tobytes()


def compressed_depth(millimetres: NDArray[Any], unset: bytes = bytes(8)) -> bytes:
    """Write a 16UC1 message of ROS; `unset` stands where 32FC1 has its numbers."""
    return struct.pack("<i", 0) + unset + png16(millimetres)


def compressed_depth_32fc1(metres: NDArray[Any]) -> bytes:
    """Write a 32FC1 message of ROS: quantised inverse depth, 0 for holes and what is too far."""
    a = QUANTISATION * (QUANTISATION + 1)
    b = 1 - a / FARTHEST_M
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.where((metres > 0) & (metres < FARTHEST_M), a / metres + b, 0)
    return struct.pack("<iff", 0, a, b) + png16(numbers)


def carla(metres: NDArray[Any]) -> bytes:
    """Write 24 bits of RGB, low byte first, 1000 m at the end."""
    numbers = np.round(metres / 1000 * (2**24 - 1)).astype(np.uint32)
    return png8(np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1))


def spatialbot(millimetres: NDArray[Any]) -> bytes:
    """Write ten, five and five bits of millimetres as R, G and B."""
    d = millimetres.astype(int)
    return png8(np.stack([d // 1024 * 4, d // 32 * 8 % 256, d % 32 * 8], axis=-1))


def tartanair(metres: NDArray[Any]) -> bytes:
    """Write the bytes of float32 as B, G, R and A."""
    parts = np.ascontiguousarray(metres.astype("<f4")).view(np.uint8).reshape(*metres.shape, 4)
    return png8(parts[..., [2, 1, 0, 3]])


def float_rgba(shares: NDArray[Any]) -> bytes:
    """Write shares of the far plane, 0 to below 1, as Unity's EncodeFloatRGBA does."""
    parts = np.stack([shares * 255.0**power % 1 for power in range(4)], axis=-1)
    parts[..., :3] -= parts[..., 1:] / 255
    return png8(np.round(parts * 255))


def exr(compression: str = "zip", **channels: NDArray[Any]) -> bytes:
    """Write one part with these channels, float32 or float16; names may hold "." as "__"."""
    import OpenEXR

    kinds = {
        "none": OpenEXR.NO_COMPRESSION,
        "rle": OpenEXR.RLE_COMPRESSION,
        "zip": OpenEXR.ZIP_COMPRESSION,
        "piz": OpenEXR.PIZ_COMPRESSION,
    }
    held = {name.replace("__", "."): np.ascontiguousarray(values) for name, values in channels.items()}
    header = {"compression": kinds[compression], "type": OpenEXR.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "depth.exr"
        OpenEXR.File(header, held).write(str(path))
        return path.read_bytes()
