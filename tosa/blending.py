"""Soft ways back: each patch as a weighted mean of the tokens that it went into."""

from __future__ import annotations

from torch import Tensor

from tosa.tokens import Blend, Tokens


def follow(before: Tokens, index: Tensor, weight: Tensor, num_out: int) -> Blend | None:
    """Follow every patch through the tokens before a step to those after it; None where none are tracked.

    index, weight [B, N, K]: the tokens after it, counted without the prefix, that each token before it
    without the prefix went into, and by how much. Of every patch, the K heaviest are kept.
    """
    if before.source.shape[1] == 0 or before.has_holes:
        return None
    prefix, top_k = before.num_prefix, index.shape[-1]
    if before.blend is None:
        token = (before.source - prefix)[..., None].expand(-1, -1, top_k)
        return Blend(prefix + index.gather(1, token), weight.gather(1, token))
    token = (before.blend.index - prefix).flatten(1)[..., None].expand(-1, -1, top_k)
    shape = before.blend.index.shape[:2]
    passed = before.blend.weight.flatten(1)[..., None] * weight.gather(1, token)
    mix = weight.new_zeros(*shape, num_out - prefix)
    spread = before.blend.index.shape[2] * top_k
    mix = mix.scatter_add(2, index.gather(1, token).reshape(*shape, spread), passed.reshape(*shape, spread))
    best = mix.topk(min(top_k, num_out - prefix), dim=-1)
    return Blend(prefix + best.indices, best.values / best.values.sum(dim=-1, keepdim=True))
