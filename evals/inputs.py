"""Encoder inputs, pixels and spatial tokens, from a frame with metric depth, without the service."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from depth import DepthMap, depth_codes, metric_depth
from tosa import spatial_tokens
from vlm import Vlm, pixel_values


def frame_inputs(vlm: Vlm, rgb: NDArray[np.uint8], depth: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return pixels [1, 3, S, S] and spatial tokens [1, P, D]; rgb [H, W, 3], depth [H, W] in metres."""
    return pixel_values(vlm, [Image.fromarray(rgb)]), spatial_of(vlm, metric_depth(depth))


def spatial_of(vlm: Vlm, depth: DepthMap, kernel: str = "sinusoidal") -> Tensor:
    """Turn a depth map into spatial tokens [1, P, D] on the model's device, as the service does."""
    rows, columns = vlm.shape.grid
    z = depth_codes(depth, (rows, columns), levels=rows)
    return spatial_tokens(z[None], kernel=kernel, levels=rows).to(vlm.device)
