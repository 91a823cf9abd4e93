"""From ROS image messages to image and depth files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.recordings.recording import WalkError

COLOURS = {
    "rgb8": (3, "RGB"),
    "bgr8": (3, "BGR"),
    "rgba8": (4, "RGB"),
    "bgra8": (4, "BGR"),
    "mono8": (1, "L"),
}
"""Channels by encoding, and the order of those that count."""
MILLIMETRES, METRES = ("16UC1", "mono16"), ("32FC1",)
DEPTHS = (*MILLIMETRES, *METRES)
PNG = b"\x89PNG\r\n\x1a\n"


def colour_file(message: Any) -> bytes:
    """Return a picture as a file: the message's own if it is compressed. Raises WalkError."""
    if hasattr(message, "format"):
        return bytes(message.data)
    if message.encoding not in COLOURS:
        raise WalkError(f"pictures of encoding {message.encoding} are not known, but {', '.join(COLOURS)}")
    channels, order = COLOURS[message.encoding]
    pixels = _rows(message, np.dtype(np.uint8), channels)[..., :3]
    if order == "BGR":
        pixels = pixels[..., ::-1]
    return _png(pixels[..., 0] if order == "L" else pixels)


def depth_file(message: Any) -> tuple[bytes, float]:
    """Return depth as a file, and how many of its units are a metre. Raises WalkError.

    16UC1: millimetres, a PNG. 32FC1: metres, NPY. Compressed: the PNG that follows a header of 12 bytes.
    """
    if hasattr(message, "format"):
        data = bytes(message.data)
        start = data.find(PNG, 0, 64)
        if start < 0 or "32FC1" in message.format:
            raise WalkError(f"compressed depth of format {message.format!r} is not known, but PNG of 16UC1")
        return data[start:], 1000.0
    order = ">" if message.is_bigendian else "<"
    if message.encoding in MILLIMETRES:
        depth = _rows(message, np.dtype(f"{order}u2"), 1)[..., 0]
        return _png(depth.astype(np.uint16)), 1000.0
    if message.encoding in METRES:
        depth = _rows(message, np.dtype(f"{order}f4"), 1)[..., 0].astype(np.float32)
        buffer = io.BytesIO()
        np.save(buffer, depth)
        return buffer.getvalue(), 1.0
    raise WalkError(f"depth of encoding {message.encoding} is not known, but {', '.join(DEPTHS)}")


def _rows(message: Any, kind: np.dtype[Any], channels: int) -> NDArray[Any]:
    """Return the pixels [H, W, channels] of a message, without the padding of its rows."""
    used = message.width * channels * kind.itemsize
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < used or len(data) < message.step * message.height:
        raise WalkError(f"a message has {len(data)} bytes, too few for {message.width} x {message.height}")
    rows = data[: message.step * message.height].reshape(message.height, message.step)[:, :used]
    return np.ascontiguousarray(rows).view(kind).reshape(message.height, message.width, channels)


def _png(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
