"""Picture files under bad conditions, for questions about real data."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from depth import DepthMap
from service.roomqa.condition import Condition
from service.roomqa.spoil import spoil


def spoiled_file(data: bytes, condition: Condition, depth: DepthMap | None = None) -> bytes:
    """Return a picture file as a PNG of how it looks under a condition; the seed is the digest of the file.

    depth: of the same view, in metres and of any size; fog needs it. Raises ValueError for fog without, and
    what Pillow raises for a file that it cannot read.
    """
    with Image.open(BytesIO(data)) as opened:
        rgb = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    metres = None if depth is None else metres_for(depth, rgb.shape[:2])
    written = BytesIO()
    Image.fromarray(spoil(rgb, condition, seed, metres)).save(written, "PNG", compress_level=1)
    return written.getvalue()


def metres_for(depth: DepthMap, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return depth in metres for a picture of (height, width), 0 in holes; pixels take the nearest value.

    Raises ValueError for depth without a unit.
    """
    if depth.unit is None:
        raise ValueError(f"fog needs depth in metres, and this is {depth.kind} depth without a unit")
    rows, columns = (
        (np.arange(length) * 2 + 1) * given // (2 * length)
        for length, given in zip(shape, depth.shape, strict=True)
    )
    values, valid = depth.values[np.ix_(rows, columns)], depth.valid[np.ix_(rows, columns)]
    known = valid & (values > 0)
    metres = values if depth.unit == "m" else 1 / np.where(known, values, 1)
    return np.where(known, metres, 0).astype(np.float32)
