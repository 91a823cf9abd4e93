"""A loaded depth estimator: frozen values around one transformers model, and its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from depth.estimate import Kind
from depth.estimators.families import Family
from depth.estimators.preprocess import ImageSettings, view, without_padding

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class LoadedEstimator:
    """Hold one loaded model and everything an estimate needs to know about it.

    `revision` is the hub commit where known, else 16 hex digits of the SHA-256 of the weights. `licence` is
    what the model card names, or None. `size_px` is the side of the square view the model
    gets, `batch_size` the most images of one forward pass.
    """

    id: str
    revision: str
    licence: str | None
    kind: Kind
    size_px: int
    batch_size: int
    model: PreTrainedModel
    image_settings: ImageSettings
    family: Family
    device: torch.device
    dtype: torch.dtype

    def predict(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return [n, h, w] maps of `kind`, as the model returns them, unchecked: NaN is possible."""
        groups = [images[at : at + self.batch_size] for at in range(0, len(images), self.batch_size)]
        maps = np.concatenate([self._forward(group) for group in groups])
        if self.image_settings.pad:
            maps = np.stack([without_padding(*pair) for pair in zip(maps, _sizes(images), strict=True)])
        return maps

    def _forward(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        views = torch.stack([view(image, self.image_settings, self.size_px) for image in images])
        with torch.inference_mode():
            outputs = self.model(pixel_values=views.to(self.device, self.dtype))
            return self.family.read(outputs).float().cpu().numpy()


def _sizes(images: Sequence[Image.Image]) -> list[tuple[int, int]]:
    return [image.size for image in images]
