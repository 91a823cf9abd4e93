"""timm's VisionTransformer as an adapter: DeiT, AugReg, DINOv2, CLIP, SigLIP and more of the same blocks.

Prefix tokens are whatever the model counts as such: class, distillation, registers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block as PreNormBlock
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor

from tosa import Tokens, attention
from vlm.adapters import timm_parts
from vlm.adapters.adapter import Block, Grid, TensorMap, ViTAdapter, same, unsupported
from vlm.adapters.hooks import Replaced, call
from vlm.adapters.timm_parts import mlp_branch


def adapt_vit(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Adapt blocks of either norm placement, with LayerScale, q/k norm, scale norms and gates, or raise."""
    timm_parts.require_same_forward(model, VisionTransformer)
    grid = timm_parts.input_grid(model, image_size, model.dynamic_img_size)
    blocks = tuple(block(layer, index) for index, layer in enumerate(model.blocks))
    shape = timm_parts.encoder_shape(model, grid)
    embed = partial(_embed, model, grid)
    return ViTAdapter(shape, embed, blocks, model.norm, passed_by=timm_parts.passed_by(model))


def _embed(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    timm_parts.require_grid(model, grid, model.dynamic_img_size, pixel_values)
    return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixel_values))))


def block(layer: Any, index: int) -> Block:
    """Name the parts of a Block or ResPostBlock, or raise."""
    kind = type(layer)
    if kind is not PreNormBlock and kind is not ResPostBlock:
        raise unsupported("VisionTransformer", f"{kind.__name__} is neither Block nor ResPostBlock")
    if type(layer.attn) is not Attention:
        raise unsupported("VisionTransformer", f"its attention is {type(layer.attn).__name__}")
    if kind is ResPostBlock:
        return _in_parts(layer, index, same, layer.norm1, same, layer.norm2)
    return _in_parts(layer, index, layer.norm1, layer.ls1, layer.norm2, layer.ls2)


def _in_parts(
    layer: Any, index: int, norm1: TensorMap, scale1: TensorMap, norm2: TensorMap, scale2: TensorMap
) -> Block:
    attend = partial(_attend, timm_parts.attention_site(layer, index), scale1, layer.drop_path1)
    mlp = partial(mlp_branch, layer.mlp, scale2, layer.drop_path2)
    return Block(norm1, attend, norm2, mlp, timm_parts.layer_site(layer, index))


def _attend(
    site: Replaced, scale: TensorMap, drop_path: TensorMap, x: Tensor, tokens: Tokens, size: Tensor | None
) -> tuple[Tensor, Tensor]:
    attended, keys = call(site, partial(_self_attention, site.module, size), x)
    return drop_path(scale(attended)), keys


def _self_attention(module: Any, size: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = timm_parts.split_qkv(module.qkv(x), module.num_heads)
    q, k = module.q_norm(q), module.k_norm(k)
    return timm_parts.project(module, attention(q, k, v, size), x), k
