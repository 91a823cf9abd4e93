"""Frames as a video. transformers takes frames without times as 24 in a second; so do we."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

FRAMES_PER_S = 24
OPTIONS = {"do_sample_frames": False, "return_tensors": "pt"}
"""How a video processor is to read `as_video`: all frames."""


def as_video(images: Sequence[Image.Image]) -> list[Any]:
    """Return frames of one size as transformers takes one video: uint8 [frames, 3, height, width].

    With colours last, a height of 1 or 3 px would be taken for them.
    """
    first = images[0].size
    rgb = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
    same = [image if image.size == first else image.resize(first) for image in rgb]
    return [torch.from_numpy(np.stack([np.asarray(image) for image in same])).permute(0, 3, 1, 2)]


def frame_times(number: int) -> list[float]:
    """Return the time of each frame in seconds."""
    return [at / FRAMES_PER_S for at in range(number)]
