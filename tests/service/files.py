"""Image files made in memory, good and bad."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from tests.depth.files import chunk, png8, png16

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    """Encode pixels with Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    """Encode two frames."""
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


def png_promising(width: int, height: int) -> bytes:
    """Write a tiny PNG whose header promises many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


IMAGE = png8(PIXELS)
DEPTH = png16(np.arange(500, 500 + 48 * 64).reshape(48, 64))
