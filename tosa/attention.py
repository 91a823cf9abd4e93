"""Proportional attention: a token that stands for s patches counts s times as a key (ToMe, arXiv 2210.09461).

Two exactly equivalent forms: with a mask, and without one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, size: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Attend with log(size) added on the key axis: softmax(q k^T / sqrt(D) + bias + log size) v.

    q, k, v [B, H, N, D]; size [B, N] or None for plain attention; bias [B or 1, H, N, N], such as one of
    relative positions, or None; returns [B, H, N, D].
    """
    mask = None if size is None else size.log().to(q.dtype)[:, None, None, :]
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
    log_size = size.log().to(k.dtype)[:, None, :, None].expand(*k.shape[:-1], 1)
    q = F.pad(torch.cat([q, torch.full_like(log_size, dim**0.5)], dim=-1), (0, pad - 1))
    k = F.pad(torch.cat([k, log_size], dim=-1), (0, pad - 1))
    return F.scaled_dot_product_attention(q, k, F.pad(v, (0, pad)), scale=dim**-0.5)[..., :dim]
