"""Proportional attention: a token that stands for s patches counts s times as a key (ToMe, arXiv 2210.09461).

Two exactly equivalent forms: with a mask, and without one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa.precision import upcast


def attention(
    q: Tensor, k: Tensor, v: Tensor, size: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Attend with log(size) added on the key axis: softmax(q k^T / sqrt(D) + bias + log size) v.

    q, k, v [B, H, N, D]; size [B, N] or None for plain attention; bias [B or 1, H, N, N], such as one of
    relative positions, or None; returns [B, H, N, D].
    """
    mask = None if size is None else log_size(size, q)[:, None, None, :]
    if bias is not None:
        mask = bias if mask is None else bias + mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_by_channel(q: Tensor, k: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Compute the same as `attention` without a mask, for kernels that take none (flash).

    One more channel carries sqrt(D) on q and log(size) on k, zero on v; width padded to a multiple of 8,
    as those kernels want it.
    """
    dim = q.shape[-1]
    pad = 8 - dim % 8
    weight = log_size(size, k)[:, None, :, None].expand(*k.shape[:-1], 1)
    q = F.pad(torch.cat([q, torch.full_like(weight, dim**0.5)], dim=-1), (0, pad - 1))
    k = F.pad(torch.cat([k, weight], dim=-1), (0, pad - 1))
    return F.scaled_dot_product_attention(q, k, F.pad(v, (0, pad)), scale=dim**-0.5)[..., :dim]


def log_size(size: Tensor, like: Tensor) -> Tensor:
    """Return log(size) in the dtype of `like`, computed in float32 or better."""
    return upcast(size, like=like).log().to(like.dtype)
