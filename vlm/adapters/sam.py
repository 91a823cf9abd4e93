"""timm's VisionTransformerSAM (samvit) as an adapter: attention in windows, decomposed relative positions.

Methods must keep the grid. Tokens stay [B, N, C] in row-major order between blocks; the convolutional neck
needs the full grid, so it is not part of the loop (`ViTAdapter.neck`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import Attention, VisionTransformerSAM, get_decomposed_rel_pos_bias
from timm.models.vision_transformer_sam import Block as SamBlock
from torch import Tensor

from tosa import EncoderShape, Tokens
from vlm.adapters import timm_parts
from vlm.adapters.adapter import Block, Grid, ViTAdapter, join_heads, same, split_heads, unsupported
from vlm.adapters.hooks import Replaced, call
from vlm.adapters.timm_parts import mlp_branch


def adapt_sam(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    timm_parts.require_same_forward(model, VisionTransformerSAM)
    grid = timm_parts.input_grid(model, image_size, dynamic=True)
    layers: list[Any] = list(model.blocks)
    blocks = tuple(_block(layer, index) for index, layer in enumerate(layers))
    shape = EncoderShape(
        num_layers=len(layers),
        grid=grid,
        hidden_size=model.embed_dim,
        mlp_size=timm_parts.mlp_size(model),
        name=type(model).__name__,
        window=_window(layers),
        global_layers=tuple(index for index, layer in enumerate(layers) if layer.window_size == 0),
        requires_grid=True,
    )
    embed = partial(_embed, model, grid)
    return ViTAdapter(shape, embed, blocks, same, model.neck, timm_parts.passed_by(model))


def _window(layers: Iterable[Any]) -> Grid | None:
    sizes = {layer.window_size for layer in layers} - {0}
    if len(sizes) > 1:
        raise unsupported("VisionTransformerSAM", "its blocks have windows of different sizes")
    side = sizes.pop() if sizes else None
    return None if side is None else (side, side)


def _embed(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    timm_parts.require_grid(model, grid, dynamic=True, pixel_values=pixel_values)
    x = model.patch_embed(pixel_values)  # [B, rows, columns, C]
    if model.pos_embed is not None:
        x = x + resample_abs_pos_embed_nhwc(model.pos_embed, list(grid))
    return model.norm_pre(model.patch_drop(model.pos_drop(x))).flatten(1, 2)


def _block(layer: Any, index: int) -> Block:
    if type(layer) is not SamBlock or type(layer.attn) is not Attention:
        kinds = f"{type(layer).__name__} with {type(layer.attn).__name__}"
        raise unsupported("VisionTransformerSAM", f"{kinds} is not a Block with Attention")
    if layer.attn.rope is not None:
        raise unsupported("VisionTransformerSAM", "rotary positions (use_rope) are not supported")
    mlp = partial(mlp_branch, layer.mlp, layer.ls2, layer.drop_path2)
    attend = partial(_attend, layer, Replaced(layer.attn, f"blocks.{index}.attn"))
    site = Replaced(layer, f"blocks.{index}", on_grid=True)
    return Block(layer.norm1, attend, layer.norm2, mlp, site)


def _attend(
    layer: Any, site: Replaced, x: Tensor, tokens: Tokens, size: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend inside zero-padded windows; a global layer has one window, the whole grid."""
    grid = tokens.grid
    window = tokens.window if layer.window_size else grid
    assert grid is not None and window is not None, "SAM needs tokens on a grid"
    if size is not None:
        size = _partition(size[..., None], grid, window, fill=1.0)[..., 0]
    windows = _partition(x, grid, window).unflatten(1, window)
    attended, keys = call(site, partial(_self_attention, layer.attn, size), windows)
    attended = attended.flatten(1, 2)
    attended = layer.drop_path1(layer.ls1(attended))  # on windows, as in the library
    keys = split_heads(_unpartition(join_heads(keys), grid, window), layer.attn.num_heads)
    return _unpartition(attended, grid, window), keys


def _self_attention(module: Any, size: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attend inside windows [windows, rows, columns, C], as timm lays them out for the module."""
    window = (x.shape[1], x.shape[2])
    q, k, v = timm_parts.split_qkv(module.qkv(x.flatten(1, 2)), module.num_heads)
    q, k = module.q_norm(q), module.k_norm(k)
    bias = None if size is None else size.log().to(q.dtype)[:, None, None, :]
    if module.use_rel_pos:
        place = get_decomposed_rel_pos_bias(
            q.flatten(0, 1), module.rel_pos_h, module.rel_pos_w, window, window
        ).unflatten(0, q.shape[:2])  # [windows, heads, tokens, tokens]
        bias = place if bias is None else place + bias
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return module.proj_drop(module.proj(join_heads(attended).unflatten(1, window))), k


def _partition(x: Tensor, grid: Grid, window: Grid, fill: float = 0.0) -> Tensor:
    """Partition [B, rows * columns, C] into windows [B * windows, tokens of one, C]; the last are padded."""
    x = x.unflatten(1, grid)
    bottom, right = -grid[0] % window[0], -grid[1] % window[1]
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom), value=fill)
    x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))  # [B, down, rows, across, columns, C]
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def _unpartition(x: Tensor, grid: Grid, window: Grid) -> Tensor:
    """Undo `_partition`, without the padding."""
    down, across = -(-grid[0] // window[0]), -(-grid[1] // window[1])
    x = x.unflatten(1, window).unflatten(0, (-1, down, across)).transpose(2, 3)
    x = x.flatten(3, 4).flatten(1, 2)  # [B, filled rows, filled columns, C]
    return x[:, : grid[0], : grid[1]].flatten(1, 2)
