"""Pseudo-spatial tokens of ToSA: a code of (row, column, depth level) per patch (arXiv 2506.20066).

Takes depth levels ready made; knows nothing about depth maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPATIAL_DIM = 72  # the paper's width: three axes of 24 channels
KERNELS = ("sinusoidal",)


def spatial_tokens(z: Tensor, dim: int = SPATIAL_DIM, kernel: str = "sinusoidal") -> Tensor:
    """Code each patch's row, column and depth level: z [B, h, w] int -> [B, h*w, dim] float32.

    Each axis takes dim/3 channels, sine and cosine interleaved, frequencies 10000^(-2k / (dim/3)).
    Raises ValueError when dim is not a multiple of 6, or the kernel is unknown.
    """
    if dim <= 0 or dim % 6:
        raise ValueError(f"dim must be a positive multiple of 6, got {dim}")
    if kernel not in KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}; known: {', '.join(KERNELS)}")
    _, rows, columns = z.shape
    row = torch.arange(rows, device=z.device)[:, None].expand_as(z)
    column = torch.arange(columns, device=z.device).expand_as(z)
    return torch.cat([_sinusoid(axis, dim // 3) for axis in (row, column, z)], dim=-1).flatten(1, 2)


def _sinusoid(position: Tensor, dim: int) -> Tensor:
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim)
    angle = position.float()[..., None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
