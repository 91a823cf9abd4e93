"""The layers that encoders of transformers share: layer_norm1, self_attn, layer_norm2, mlp.

Embeddings and final norms differ between SigLIP, SigLIP 2 and CLIP; their adapters provide them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor

from tosa import EncoderShape, Tokens, attention
from vlm.adapters.adapter import Block, Grid, join_heads, split_heads, unsupported


def blocks(model: Any) -> tuple[Block, ...]:
    """Name the parts of the layers of model.encoder."""
    layers: Iterable[Any] = model.encoder.layers
    return tuple(
        Block(layer.layer_norm1, partial(_attend, layer.self_attn), layer.layer_norm2, layer.mlp)
        for layer in layers
    )


def shape(model: Any, grid: Grid, num_prefix: int = 0) -> EncoderShape:
    config = model.config
    return EncoderShape(
        num_layers=len(model.encoder.layers),
        grid=grid,
        num_prefix=num_prefix,
        hidden_size=config.hidden_size,
        mlp_size=config.intermediate_size,
        name=type(model).__name__,
    )


def require_plain_forward(model: Any, base: type[Any]) -> None:
    """Refuse a subclass whose forward differs from that of the class that the loop replaces."""
    if type(model).forward is not base.forward:
        raise unsupported(type(model).__name__, f"it has its own forward, unlike {base.__name__}")


def _attend(module: Any, x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k, v = (
        split_heads(proj(x), module.num_heads) for proj in (module.q_proj, module.k_proj, module.v_proj)
    )
    return module.out_proj(join_heads(attention(q, k, v, size))), k
