"""Images to an estimator's input: all of an image, squashed to one square, so that any images share a batch.

transformers would keep the aspect ratio and give every image its own shape. Padding of the input
is cropped from the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes input: preprocessor_config.json of the checkpoint.

    `rescale` multiplies 0..255 values before `(v - mean) / std`; `resample` is a PIL filter number; `pad`
    reflects the image's borders outwards before it is squashed, as ZoeDepth does.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float
    resample: int
    pad: bool = False


def view(image: Image.Image, settings: ImageSettings, size_px: int) -> Tensor:
    """Return [3, S, S] float32. Any mode and size; alpha is dropped."""
    image = image.convert("RGB")
    if settings.pad:
        image = _reflect(image)
    if image.size != (size_px, size_px):
        image = image.resize((size_px, size_px), Image.Resampling(settings.resample))
    rgb = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    return (rgb.float() * settings.rescale - mean) / std


def without_padding(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Crop the padding of `view` from a [h, w] map of an image of (width, height), at the same resolution."""
    (pad_x, pad_y), (width, height) = _padding(size), size
    rows, columns = values.shape
    x, y = columns * pad_x / (width + 2 * pad_x), rows * pad_y / (height + 2 * pad_y)
    box = (x, y, columns - x, rows - y)
    return np.array(Image.fromarray(values).resize((columns, rows), Image.Resampling.BILINEAR, box=box))


def _reflect(image: Image.Image) -> Image.Image:
    pad_x, pad_y = _padding(image.size)
    return Image.fromarray(np.pad(np.array(image), ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), "reflect"))


def _padding(size: tuple[int, int]) -> tuple[int, int]:
    """Pixels on each side of an image of (width, height), as ZoeDepth (Bhat et al., 2023) was evaluated."""
    return int((size[0] / 2) ** 0.5 * 3), int((size[1] / 2) ** 0.5 * 3)
