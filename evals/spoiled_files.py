"""Picture files under bad conditions, for questions about real data."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from service.roomqa.condition import Condition
from service.roomqa.spoil import spoil


def spoiled_file(data: bytes, condition: Condition) -> bytes:
    """Return a picture file as a PNG of how it looks under a condition; the seed is the digest of the file.

    Fog needs depth, see `spoil`. Raises what Pillow raises for a file that it cannot read.
    """
    with Image.open(BytesIO(data)) as opened:
        rgb = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    written = BytesIO()
    Image.fromarray(spoil(rgb, condition, seed)).save(written, "PNG", compress_level=1)
    return written.getvalue()
