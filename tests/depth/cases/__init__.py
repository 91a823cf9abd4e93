"""Depth files as others write them, of `examples/frames/room-1` with a band and a rectangle of holes.

Smaller ones than 384 x 384 hold a regular part of the pixels.
"""

from __future__ import annotations

import gzip
from pathlib import Path

FOLDER = Path(__file__).parent


def case(name: str) -> bytes:
    """Return the bytes of a file of this folder; large ones are stored compressed."""
    packed = FOLDER / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / name).read_bytes()
