"""DINOv2 of transformers, with and without registers: class and register tokens are protected.

Images of any size are taken, as in the library, which resizes the positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import Dinov2Model, Dinov2WithRegistersModel

from tosa import Tokens, attention
from vlm.adapters import hugging_face
from vlm.adapters.adapter import Attend, Block, Grid, ViTAdapter, join_heads, split_heads
from vlm.adapters.hooks import Replaced, call
from vlm.adapters.hugging_face import NO_MASK, attend, attention_site, branch, layer_site, plain_attention


def adapt_dinov2(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    hugging_face.require_plain_forward(model, Dinov2Model, Dinov2WithRegistersModel)
    patches = model.embeddings.patch_embeddings
    patch = hugging_face.pair(patches.patch_size)
    size = hugging_face.pair(patches.image_size) if image_size is None else image_size
    grid = hugging_face.whole_patches(model, size, patch)
    layers = hugging_face.named_layers(model)
    num_prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    mlp_size = hugging_face.mlp_size(layers[0][1].mlp, model.config.hidden_size)
    return ViTAdapter(
        shape=hugging_face.shape(model, grid, num_prefix, mlp_size),
        embed=partial(_embed, model, grid, patch),
        blocks=tuple(_block(layer, name) for name, layer in layers),
        finish=model.layernorm,
        passed_by=hugging_face.passed_by(model),
    )


def _embed(model: Any, grid: Grid, patch: Grid, pixel_values: Tensor) -> Tensor:
    hugging_face.require_grid(model, grid, patch, pixel_values)
    return model.embeddings(pixel_values)


def _block(layer: Any, name: str) -> Block:
    return Block(
        layer.norm1,
        _attention_branch(layer, f"{name}.attention"),
        layer.norm2,
        partial(branch, (layer.mlp, layer.layer_scale2, layer.drop_path)),
        layer_site(layer, name, rest=() if hasattr(layer.attention, "attention") else (None,)),
    )


def _attention_branch(layer: Any, name: str) -> Attend:
    module, tail = layer.attention, (layer.layer_scale1, layer.drop_path)
    if not hasattr(module, "attention"):
        site = attention_site(module, name, kwargs=NO_MASK)
        return partial(attend, site, partial(plain_attention, "o_proj"), tail)
    # In transformers 5.17, attention and its last projection are modules of their own inside the module.
    inner = attention_site(module.attention, f"{name}.attention")
    return partial(attend, Replaced(module, name), partial(_nested_attention, inner), tail)


def _nested_attention(
    site: Replaced, module: Any, tokens: Tokens, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    attended, keys = call(site, partial(_inner_attention, site.module, size), x)
    return module.output(attended, x), keys


def _inner_attention(module: Any, size: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    heads = module.num_attention_heads
    q, k, v = (split_heads(proj(x), heads) for proj in (module.query, module.key, module.value))
    return join_heads(attention(q, k, v, size)), k
