"""Adapter of timm's Eva: EVA, EVA-02, Perception Encoder, RoPE-ViT and DINOv3, mostly with rotary positions.

The keys that guide merging are taken before the rotation, so that they compare content and not place.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor

from tosa import Tokens, attention
from vlm.adapters import timm_parts
from vlm.adapters.adapter import Block, Grid, TensorMap, ViTAdapter, same, split_heads, unsupported
from vlm.adapters.hooks import Replaced, call
from vlm.adapters.rotary import Rotary, rotary, rotate
from vlm.adapters.timm_parts import mlp_branch


def adapt_eva(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Adapt blocks of either norm placement and attention, fused or not, or raise."""
    timm_parts.require_same_forward(model, Eva)
    grid = timm_parts.input_grid(model, image_size, model.dynamic_img_size)
    places = rotary(model.rope, grid)
    blocks = tuple(block(layer, index, places) for index, layer in enumerate(model.blocks))
    shape = timm_parts.encoder_shape(model, grid, rotary=places is not None)
    embed = partial(_embed, model, grid)
    return ViTAdapter(shape, embed, blocks, model.norm, passed_by=timm_parts.passed_by(model))


def _embed(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    timm_parts.require_grid(model, grid, model.dynamic_img_size, pixel_values)
    x, _ = model._pos_embed(model.patch_embed(pixel_values))
    return model.norm_pre(x)


def block(layer: Any, index: int, places: Rotary | None) -> Block:
    """Name the parts of an EvaBlock or EvaBlockPostNorm, or raise."""
    kind = type(layer)
    if kind is not EvaBlock and kind is not EvaBlockPostNorm:
        raise unsupported("Eva", f"{kind.__name__} is neither EvaBlock nor EvaBlockPostNorm")
    if type(layer.attn) is not EvaAttention and type(layer.attn) is not AttentionRope:
        raise unsupported("Eva", f"its attention is {type(layer.attn).__name__}")
    site = timm_parts.layer_site(layer, index)
    attend = partial(_attend, timm_parts.attention_site(layer, index), index, places, layer.drop_path1)
    mlp = partial(mlp_branch, layer.mlp)
    if kind is EvaBlockPostNorm:
        post_norm = partial(mlp, layer.norm2, layer.drop_path2)
        return Block(same, partial(attend, layer.norm1), same, post_norm, site)
    scale1, scale2 = timm_parts.scale(layer.gamma_1), timm_parts.scale(layer.gamma_2)
    return Block(
        layer.norm1, partial(attend, scale1), layer.norm2, partial(mlp, scale2, layer.drop_path2), site
    )


def _attend(
    site: Replaced,
    index: int,
    places: Rotary | None,
    drop_path: TensorMap,
    scale: TensorMap,
    x: Tensor,
    tokens: Tokens,
    size: Tensor | None,
) -> tuple[Tensor, Tensor]:
    table = None if places is None else places.table(tokens, index)
    attended, keys = call(site, partial(_self_attention, site.module, table, tokens.num_prefix, size), x)
    return drop_path(scale(attended)), keys


def _self_attention(
    module: Any, table: Tensor | None, num_prefix: int, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    q, k, v = _queries_keys_values(module, x)
    q, keys = module.q_norm(q), module.k_norm(k)
    k = keys
    if table is not None:
        q, k = (rotate(part, table, num_prefix, module.rotate_half).type_as(v) for part in (q, keys))
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
    return timm_parts.project(module, attention(q, k, v, size), x), keys


def _queries_keys_values(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if module.qkv is not None:
        return timm_parts.split_qkv(timm_parts.fused_qkv(module, x), module.num_heads)
    q, k, v = module.q_proj(x), module.k_proj(x), module.v_proj(x)
    kv_heads = k.shape[2] // (q.shape[2] // module.num_heads)
    return split_heads(q, module.num_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
