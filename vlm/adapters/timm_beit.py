"""timm's Beit as an adapter: BEiT and BEiT v2, with a bias of relative positions, per layer or shared.

The bias follows the kept token: two merged tokens attend to each other as the two patches would whose places
they keep (`vlm.adapters.relative`), with methods that keep a grid too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.beit import Attention, Beit
from timm.models.beit import Block as BeitBlock
from torch import Tensor

from tosa import Tokens, attention
from vlm.adapters import timm_parts
from vlm.adapters.adapter import Block, Grid, TensorMap, ViTAdapter, join_heads, unsupported
from vlm.adapters.hooks import Replaced, call
from vlm.adapters.relative import bias_between
from vlm.adapters.timm_parts import mlp_branch, scale


def adapt_beit(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Adapt plain and gated MLPs, absolute and relative positions, or raise. The class token is protected."""
    timm_parts.require_same_forward(model, Beit)
    grid = timm_parts.input_grid(model, image_size, dynamic=False)
    blocks = tuple(_block(layer, index, model.rel_pos_bias) for index, layer in enumerate(model.blocks))
    shape = timm_parts.encoder_shape(model, grid)
    embed = partial(_embed, model, grid)
    passed_by = timm_parts.passed_by(model)
    return ViTAdapter(shape, embed, blocks, model.norm, passed_by=passed_by, relative=_has_bias(model))


def _has_bias(model: Any) -> bool:
    own = any(layer.attn.relative_position_bias_table is not None for layer in model.blocks)
    return own or model.rel_pos_bias is not None


def _embed(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    timm_parts.require_grid(model, grid, dynamic=False, pixel_values=pixel_values)
    x = model.patch_embed(pixel_values)
    x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
    return model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)


def _block(layer: Any, index: int, shared: Any) -> Block:
    if type(layer) is not BeitBlock or type(layer.attn) is not Attention:
        kinds = f"{type(layer).__name__} with {type(layer.attn).__name__}"
        raise unsupported("Beit", f"{kinds} is not a Block with Attention")
    site = Replaced(layer.attn, f"blocks.{index}.attn")
    attend = partial(_attend, site, shared, scale(layer.gamma_1), layer.drop_path1)
    mlp = partial(mlp_branch, layer.mlp, scale(layer.gamma_2), layer.drop_path2)
    return Block(layer.norm1, attend, layer.norm2, mlp, timm_parts.layer_site(layer, index))


def _attend(
    site: Replaced,
    shared: Any,
    scale: TensorMap,
    drop_path: TensorMap,
    x: Tensor,
    tokens: Tokens,
    size: Tensor | None,
) -> tuple[Tensor, Tensor]:
    entry = _entry_bias(site.module, shared)
    bias = None if entry is None else bias_between(tokens, entry)
    attended, keys = call(site, partial(_self_attention, site.module, bias, size), x)
    return drop_path(scale(attended)), keys


def _entry_bias(module: Any, shared: Any) -> Tensor | None:
    """Return the bias between all patches, [heads, 1 + P, 1 + P]."""
    own = None if module.relative_position_bias_table is None else module._get_rel_pos_bias()[0]
    if shared is None:
        return own
    return shared() if own is None else own + shared()


def _self_attention(
    module: Any, bias: Tensor | None, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    q, k, v = timm_parts.split_qkv(timm_parts.fused_qkv(module, x), module.num_heads)
    return module.proj_drop(module.proj(join_heads(attention(q, k, v, size, bias)))), k
