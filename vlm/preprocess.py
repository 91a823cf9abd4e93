"""Images to the tower's input as one square view each, as in ToSA: the views called "single".

Every image is resized to size_px x size_px whatever its aspect ratio, so patch (row, column) always means
the same part of the image (and of its depth). The result equals the whole view that the image processor of
LlavaOnevision makes of a single image, before its tiles. Other views are made in `vlm.families`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from vlm.model import ImageSettings, Vlm

_KERNELS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def pixel_values(vlm: Vlm, images: Sequence[Image.Image], device: torch.device | str | None = None) -> Tensor:
    """Return [n, 3, S, S] in the model's dtype; S is the side the tower was built for.

    Images of any mode and size; alpha is dropped. At least one image. device: the model's by default.
    """
    views = square_views(vlm.image_processor, images)
    return views.to(device=vlm.device if device is None else device, dtype=vlm.dtype)


def square_views(settings: ImageSettings, images: Sequence[Image.Image]) -> Tensor:
    """Return [n, 3, S, S] float32: each image resized to one square and normalised."""
    views = torch.empty(len(images), 3, settings.size_px, settings.size_px)
    # One step less, as the processor does: rescaling is part of the normalisation.
    mean, std = (torch.tensor(v).view(3, 1, 1).div_(settings.rescale) for v in (settings.mean, settings.std))
    for view, image in zip(views, images, strict=True):
        view.copy_(_resized(image, settings)).sub_(mean).div_(std)
    return views


def _resized(image: Image.Image, settings: ImageSettings) -> Tensor:
    """Return [3, S, S] uint8, resized by the image processor's own kernel, or Pillow's for rare ones."""
    side, resample = settings.size_px, Image.Resampling(settings.resample)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    square = rgb.size == (side, side)
    if not square and resample not in _KERNELS:
        rgb, square = rgb.resize((side, side), resample), True
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)
    view = pixels.permute(2, 0, 1)
    return view if square else _resized_view(view, side, _KERNELS[resample])


def _resized_view(view: Tensor, side: int, kernel: str) -> Tensor:
    from torchvision.transforms.v2.functional import InterpolationMode, resize  # takes a second to import

    return resize(view, [side, side], InterpolationMode(kernel), antialias=True)
