"""The towers of Qwen2.5-VL, Qwen3-VL and Qwen3.5 as adapters: axial rotary positions, patches in blocks.

Their merger reads blocks of 2 x 2 patches, so that patches merge in cells of that size, and stand in the
order of the processor: cell after cell, row-major. (Qwen2.5-VL's own forward orders them by window in
between.) The frames of a video attend one by one: each is an image of the batch here.
Hooks of the layers see [B, N, C], where the library's own forward has no batch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from tosa import EncoderShape, Tokens, attention, cell_major
from tosa.grid import Regions, regions
from vlm.adapters import hugging_face
from vlm.adapters.adapter import (
    Block,
    Grid,
    TensorMap,
    ViTAdapter,
    join_heads,
    same,
    unsupported,
    wrong_size,
)
from vlm.adapters.axial import Places, Table
from vlm.adapters.hooks import PassedBy, Replaced, call
from vlm.adapters.hugging_face import layer_site


def adapt_qwen2_5_vl(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of whole blocks; layers attend inside windows but for those that the model names."""
    hugging_face.require_plain_forward(model, Qwen2_5_VisionTransformerPretrainedModel)
    merge, layers = model.spatial_merge_size, len(model.blocks)
    global_layers = tuple(sorted(set(model.fullatt_block_indexes) & set(range(layers))))
    side = model.window_size // merge // model.patch_size * merge
    window = None if len(global_layers) == layers else (side, side)
    return _adapter(model, image_size, same, window, global_layers)


def adapt_qwen3_vl(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of whole blocks; positions at the entry are resized, as in the library."""
    return _without_windows(model, Qwen3VLVisionModel, image_size)


def adapt_qwen3_5(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept what `adapt_qwen3_vl` does."""
    return _without_windows(model, Qwen3_5VisionModel, image_size)


def _without_windows(model: Any, kind: type[Any], image_size: tuple[int, int] | None) -> ViTAdapter:
    hugging_face.require_plain_forward(model, kind)
    mode, aligned = model.interpolation_mode, model.interpolation_align_corners
    if (mode, aligned) != ("bilinear", True):
        raise unsupported(type(model).__name__, f"it resizes positions in mode {mode}")
    cell = (model.spatial_merge_size, model.spatial_merge_size)
    return _adapter(model, image_size, partial(_with_positions, model, _grid(model, image_size), cell))


def _adapter(
    model: Any,
    image_size: tuple[int, int] | None,
    with_positions: TensorMap,
    window: Grid | None = None,
    global_layers: tuple[int, ...] = (),
) -> ViTAdapter:
    layers, cell = hugging_face.named_layers(model), (model.spatial_merge_size, model.spatial_merge_size)
    grid = _grid(model, image_size)
    mlp_size = hugging_face.mlp_size(layers[0][1].mlp, model.config.hidden_size)
    shape = replace(
        hugging_face.shape(model, grid, mlp_size=mlp_size),
        rotary=True,
        window=window,
        global_layers=global_layers,
        cell=cell,
        pads_windows=False,
    )
    places = Places(model.rotary_pos_emb, shape.cells, cell)
    return ViTAdapter(
        shape=shape,
        embed=partial(_embed, model, shape, with_positions),
        blocks=tuple(
            _block(layer, name, places, window is not None and index not in global_layers)
            for index, (name, layer) in enumerate(layers)
        ),
        finish=same,  # the norm is the merger's
        takes_patches=True,
        passed_by=(
            *hugging_face.passed_by(model),
            PassedBy(model.rotary_pos_emb, "rotary_pos_emb"),
            *((PassedBy(model.pos_embed, "pos_embed"),) if hasattr(model, "pos_embed") else ()),
        ),
    )


def _grid(model: Any, image_size: tuple[int, int] | None) -> Grid:
    name, patch, block = type(model).__name__, model.patch_size, model.patch_size * model.spatial_merge_size
    if image_size is None:
        raise unsupported(name, "it takes images of any size: say which are to come, with image_size")
    if image_size[0] % block or image_size[1] % block:
        raise wrong_size(name, image_size, f"sides that are multiples of {block} px")
    return image_size[0] // patch, image_size[1] // patch


def _embed(model: Any, shape: EncoderShape, with_positions: TensorMap, pixel_values: Tensor) -> Tensor:
    """Embed images, or the flat patches that the processor makes of them: [B * P, ...] or [B, P, ...]."""
    if pixel_values.ndim == 4:
        pixel_values = _flat_patches(model, shape, pixel_values)
    flat = pixel_values.reshape(-1, pixel_values.shape[-1])
    if len(flat) % shape.patches or (pixel_values.ndim == 3 and pixel_values.shape[1] != shape.patches):
        got = f"{pixel_values.shape[-2]} patches, which are no images of {shape.grid[0]} x {shape.grid[1]}"
        raise unsupported(shape.name, f"it got {got}: adapt the model for this size")
    return with_positions(model.patch_embed(flat).unflatten(0, (-1, shape.patches)))


def _flat_patches(model: Any, shape: EncoderShape, pixel_values: Tensor) -> Tensor:
    """Cut images into the patches of the processor: [B, P, 3 * frames * p * p], a frame repeated."""
    if _grid(model, (pixel_values.shape[-2], pixel_values.shape[-1])) != shape.grid:
        takes = f"{shape.grid[0]} x {shape.grid[1]} patches: adapt the model for this size"
        raise wrong_size(shape.name, (pixel_values.shape[-2], pixel_values.shape[-1]), takes)
    patch, frames = model.patch_size, model.patch_embed.temporal_patch_size
    x = pixel_values.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, 3, rows, p, columns, p]
    x = x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, P, 3, p, p]
    x = x[:, :, :, None].expand(-1, -1, -1, frames, -1, -1).flatten(2)
    return cell_major(x, shape.grid, shape.cell)


def _with_positions(model: Any, grid: Grid, cell: Grid, x: Tensor) -> Tensor:
    """Add the learned positions, resized to the grid."""
    side = model.num_grid_per_side
    table = model.pos_embed.weight.unflatten(0, (side, side)).permute(2, 0, 1)[None]
    resized = F.interpolate(table, size=grid, mode="bilinear", align_corners=True)
    return x + cell_major(resized.flatten(2).mT, grid, cell).to(x.dtype)


def _block(layer: Any, name: str, places: Places, windowed: bool) -> Block:
    site = Replaced(layer.attn, f"{name}.attn")
    hugging_face.require_own_class(layer.attn, site.name)
    attend = partial(_attend, site, places, windowed)
    return Block(layer.norm1, attend, layer.norm2, layer.mlp, layer_site(layer, name, rest=()))


def _attend(
    site: Replaced, places: Places, windowed: bool, x: Tensor, tokens: Tokens, size: Tensor | None
) -> tuple[Tensor, Tensor]:
    return call(site, partial(_attention, site.module, places, windowed, tokens, size), x)


def _attention(
    module: Any, places: Places, windowed: bool, tokens: Tokens, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    table = places.table(tokens)
    if windowed and tokens.grid is not None:
        return _window_attention(module, places, tokens, table, size, x)
    assert tokens.regions is not None or not windowed, "windows need tokens on a grid, or ordered by window"
    q, keys, v = _queries_keys_values(module, x)
    q, k = _rotated(q, table), _rotated(keys, table)
    if windowed and tokens.regions is not None:
        attended = _in_windows(q, k, v, size, tokens.regions, tokens.slots)
    else:
        attended = attention(q, k, v, size)
    return module.proj(join_heads(attended)), keys


def _window_attention(
    module: Any, places: Places, tokens: Tokens, table: Table, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Attend inside the windows of a grid: in their order, and back in that of the grid."""
    assert tokens.grid is not None and tokens.window is not None
    order, back = places.order(tokens)
    table = table[0][order], table[1][order]
    q, keys, v = _queries_keys_values(module, x[:, order])
    size = None if size is None else size[:, order]
    windows = regions(tokens.grid, tokens.window)
    attended = _in_windows(_rotated(q, table), _rotated(keys, table), v, size, windows, tokens.slots)
    return module.proj(join_heads(attended))[:, back], keys[:, :, back]


def _queries_keys_values(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project x [B, N, C] into q, k, v [B, heads, N, D]."""
    q, k, v = module.qkv(x).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _in_windows(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None, windows: Regions, slots: int) -> Tensor:
    """Attend inside each of the windows, which stand one after the other: [B, heads, N, D]."""
    attended, first, batch = [], 0, q.shape[0]
    for number, cells in windows:
        part = slice(first, first + number * cells * slots)
        first = part.stop
        inside = (
            each[:, :, part].unflatten(2, (number, -1)).transpose(1, 2).flatten(0, 1) for each in (q, k, v)
        )
        weight = None if size is None else size[:, part].reshape(batch * number, -1)
        out = attention(*inside, weight).unflatten(0, (batch, number))
        attended.append(out.transpose(1, 2).flatten(2, 3))
    return torch.cat(attended, dim=2)


def _rotated(x: Tensor, table: Table) -> Tensor:
    """Rotate x [B, heads, N, D] in float32; the halves of the channels are pairs."""
    cosines, sines = table
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x.float() * cosines + turned * sines).to(x.dtype)
