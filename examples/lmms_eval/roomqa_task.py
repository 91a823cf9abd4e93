"""Functions for roomqa.yaml. lmms-eval loads this file alone, so it cannot import other modules of ours."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image


def doc_to_visual(doc: Mapping[str, str]) -> list[Image.Image]:
    """Return the frame of a question."""
    with Image.open(doc["image"]) as image:
        return [image.convert("RGB")]
