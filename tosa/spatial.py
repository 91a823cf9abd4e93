"""Pseudo-spatial tokens of ToSA: a code of (row, column, depth level) per patch (arXiv 2506.20066).

Depth is given as integer levels per patch (`depth.codes` computes them).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SPATIAL_DIM = 72  # the paper's width: three axes of 24 channels
KERNELS = ("sinusoidal", "distance")


def spatial_tokens(
    z: Tensor, dim: int = SPATIAL_DIM, kernel: str = "sinusoidal", levels: int | None = None
) -> Tensor:
    """Code each patch's row, column and depth level: z [B, h, w] int -> [B, h*w, S] float32.

    "sinusoidal", as in the paper: S = dim, each axis takes dim/3 channels, sine and cosine interleaved,
    frequencies 10000^(-2k / (dim/3)). Its similarity is not monotone: it only distinguishes near patches.
    "distance": S = 6, each axis is a half turn of a circle over its extent, so that the cosine of two patches
    falls with every step between them; `levels` is the extent of z (h by default), and a z outside
    0..levels-1 counts as the nearest level.
    Raises ValueError when dim is not a multiple of 6, or the kernel is unknown.
    """
    row, column = _rows_and_columns(z)
    extents = (*z.shape[1:], levels or z.shape[1])
    return _code((row, column, z), extents, dim, kernel)


def position_tokens(
    grid: tuple[int, int],
    batch: int = 1,
    kernel: str = "sinusoidal",
    dim: int = SPATIAL_DIM,
    device: torch.device | str | None = None,
) -> Tensor:
    """Code row and column only, for images without depth: [B, h*w, S] as `spatial_tokens`, z left out.

    dim: of the three axes there, so that S = 2/3 dim here ("distance": S = 4), and one more where that is a
    multiple of 3: a channel of zeros, which changes no cosine and tells these codes from those with depth.
    Raises ValueError alike.
    """
    axes = _rows_and_columns(torch.zeros(batch, *grid, dtype=torch.int64, device=device))
    code = _code(axes, grid, dim, kernel)
    return code if code.shape[-1] % 3 else F.pad(code, (0, 1))


def split_depth(spatial: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split spatial tokens [..., S] into those of row and column, and those of depth (None without depth).

    Told by the width: that of `spatial_tokens` is a multiple of 3, that of `position_tokens` never is.
    """
    width = spatial.shape[-1]
    if width % 3:
        return spatial, None
    return spatial[..., : 2 * width // 3], spatial[..., 2 * width // 3 :]


def _rows_and_columns(like: Tensor) -> tuple[Tensor, Tensor]:
    _, rows, columns = like.shape
    row = torch.arange(rows, device=like.device)[:, None].expand_as(like)
    return row, torch.arange(columns, device=like.device).expand_as(like)


def _code(axes: tuple[Tensor, ...], extents: tuple[int, ...], dim: int, kernel: str) -> Tensor:
    if dim <= 0 or dim % 6:
        raise ValueError(f"dim must be a positive multiple of 6, got {dim}")
    if kernel == "sinusoidal":
        codes = [_sinusoid(axis, dim // 3) for axis in axes]
    elif kernel == "distance":
        codes = [_arc(axis, extent) for axis, extent in zip(axes, extents, strict=True)]
    else:
        raise ValueError(f"unknown kernel {kernel!r}; known: {', '.join(KERNELS)}")
    return torch.cat(codes, dim=-1).flatten(1, 2)


def _sinusoid(position: Tensor, dim: int) -> Tensor:
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim)
    angle = position.float()[..., None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def _arc(position: Tensor, extent: int) -> Tensor:
    # Beyond half a turn the cosine would rise again, and far levels would resemble near ones.
    angle = position.clamp(0, extent - 1).float() * (math.pi / max(extent - 1, 1))
    return torch.stack([angle.sin(), angle.cos()], dim=-1)
