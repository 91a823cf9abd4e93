"""The merged patches of a frame, drawn as in the figures of the papers."""

from __future__ import annotations

import io

from tosa_vqa_client import OverlayView


def groups_png(image: bytes, view: OverlayView) -> bytes:
    """Draw the groups of a view of the whole picture, and return a PNG."""
    import numpy
    from PIL import Image, ImageOps

    from vlm.overlay import draw_groups

    pixels = ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB")
    rows, columns = view.grid
    buffer = io.BytesIO()
    draw_groups(pixels, numpy.array(view.groups), (rows, columns)).save(buffer, "PNG")
    return buffer.getvalue()
