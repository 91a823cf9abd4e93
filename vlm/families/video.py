"""Frames as a video. transformers takes frames without times as 24 in a second; so do we."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

FRAMES_PER_S = 24


def as_video(images: Sequence[Image.Image]) -> list[Any]:
    """Return frames of one size as transformers takes one video: uint8 [frames, height, width, 3]."""
    first = images[0].size
    rgb = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
    same = [image if image.size == first else image.resize(first) for image in rgb]
    return [np.stack([np.asarray(image) for image in same])]


def frame_times(number: int) -> list[float]:
    """Return the time of each frame in seconds."""
    return [at / FRAMES_PER_S for at in range(number)]
