"""InternVL's tower of transformers as an adapter: class token, absolute positions, LayerScale."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import InternVLVisionModel

from tosa import Tokens, attention
from vlm.adapters import hugging_face
from vlm.adapters.adapter import Block, Grid, ViTAdapter, join_heads, split_heads
from vlm.adapters.hugging_face import attend, attention_site, branch, layer_site


def adapt_internvl(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of any size, as the library does: positions are resized."""
    hugging_face.require_plain_forward(model, InternVLVisionModel)
    patch = hugging_face.pair(model.config.patch_size)
    size = hugging_face.pair(model.config.image_size) if image_size is None else image_size
    grid = hugging_face.whole_patches(model, size, patch)
    return ViTAdapter(
        shape=hugging_face.shape(model, grid, num_prefix=1),
        embed=partial(_embed, model, grid, patch),
        blocks=tuple(_block(layer, name) for name, layer in hugging_face.named_layers(model)),
        finish=model.layernorm,
        passed_by=hugging_face.passed_by(model),
    )


def _embed(model: Any, grid: Grid, patch: Grid, pixel_values: Tensor) -> Tensor:
    hugging_face.require_grid(model, grid, patch, pixel_values)
    return model.embeddings(pixel_values)


def _block(layer: Any, name: str) -> Block:
    site = attention_site(layer.attention, f"{name}.attention")
    return Block(
        layer.layernorm_before,
        partial(attend, site, _attention, (partial(_scaled, layer, "lambda_1"),)),
        layer.layernorm_after,
        partial(branch, (layer.mlp, layer.dropout, partial(_scaled, layer, "lambda_2"))),
        layer_site(layer, name, rest=()),
    )


def _attention(module: Any, tokens: Tokens, size: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    # The norms run over all heads together.
    q, k = module.q_norm(module.q_proj(x)), module.k_norm(module.k_proj(x))
    q, k, v = (split_heads(part, module.num_heads) for part in (q, k, module.v_proj(x)))
    out = module.projection_layer(join_heads(attention(q, k, v, size)))
    return module.projection_dropout(out), k


def _scaled(layer: Any, name: str, x: Tensor) -> Tensor:
    """Apply LayerScale."""
    return getattr(layer, name) * x
