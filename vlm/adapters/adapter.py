"""The interface of the encoder loop to a vision transformer: shape, embedding, and blocks in four parts.

The adapters beside this module fill it from the models of a library, and never write to a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tosa import EncoderShape, Tokens, cell_major
from tosa.grid import Grid as Grid
from vlm.adapters.hooks import PassedBy, Replaced
from vlm.model import VlmError

TensorMap = Callable[[Tensor], Tensor]
Attend = Callable[[Tensor, Tokens, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Block:
    """Name the parts of one layer: x += attend(norm1(x)); x += mlp(norm2(x)).

    attend(x [B, N, C], tokens, size [B, N] or None) returns what attention adds [B, N, C] and the keys
    [B, heads, N, head_dim]; `tokens` says where the tokens stand (grid, window, position), its x is not
    used. The keys are those after key normalisation and before any rotary rotation: content, not place.
    LayerScale, stochastic depth and a norm behind the branch are part of attend and of mlp.
    layer: the library's own layer, whose hooks run around the four parts; None where there is none.
    """

    norm1: TensorMap
    attend: Attend
    norm2: TensorMap
    mlp: TensorMap
    layer: Replaced | None = None


@dataclass(frozen=True)
class ViTAdapter:
    """Describe a loaded vision transformer to `encode`. Holds no weights of its own.

    shape: of the layers in `blocks` and of the input size it was made for.
    embed: pixel_values [B, 3, H, W] -> [B, prefix + patches, C]; VlmError for another input size. Where
        patches merge in cells (shape.cell), they are in the order of `tosa.cell_major`.
    finish: the norm behind the last layer, token by token, as the library's own forward features have it;
        nothing where later layers are left out.
    neck: what follows on the full grid, [B, C, rows, columns] -> [B, C', rows, columns] (SAM); or None.
    relative: attention has a bias for how two patches stand to each other, so that tokens keep a place.
    passed_by: modules that the loop never calls, so that they must carry no hooks.
    takes_patches: embed also takes flat patches [B * P, C] or [B, P, C], as the processors of Qwen make them.
    """

    shape: EncoderShape
    embed: TensorMap
    blocks: tuple[Block, ...]
    finish: TensorMap
    neck: TensorMap | None = None
    passed_by: tuple[PassedBy, ...] = ()
    relative: bool = False
    takes_patches: bool = False


def same(x: Tensor) -> Tensor:
    """Stand in for a norm that a block does not have."""
    return x


def count_layers(total: int, feature_layer: int) -> int:
    """Turn the index of a hidden state into the number of layers that run.

    Hidden state k is the output of k layers, so -1 runs all layers and -2 all but the last.
    """
    layers = feature_layer if feature_layer >= 0 else total + 1 + feature_layer
    if not 1 <= layers <= total:
        known = f"give 1 to {total}, or -{total} to -1"
        message = f"feature layer {feature_layer} does not exist in {total} layers: {known}"
        raise VlmError("unsupported_model", message)
    return layers


def first_layers(adapter: ViTAdapter, num_layers: int) -> ViTAdapter:
    """Stop after so many layers, before what only follows the last one."""
    shape = adapter.shape
    if num_layers == shape.num_layers:
        return adapter
    global_layers = tuple(layer for layer in shape.global_layers if layer < num_layers)
    window = None if len(global_layers) == num_layers else shape.window
    shape = replace(shape, num_layers=num_layers, global_layers=global_layers, window=window)
    return replace(adapter, shape=shape, blocks=adapter.blocks[:num_layers], finish=same, neck=None)


def in_cells(adapter: ViTAdapter, cell: Grid) -> ViTAdapter:
    """Make whole cells of patches merge, slot by slot, for what reads them together behind the encoder.

    Raises VlmError: unsupported_tower where attention needs to know the places of single patches,
    wrong_image_size for a grid that is no whole cells.
    """
    shape = adapter.shape
    if cell == shape.cell:
        return adapter
    if shape.cell != (1, 1):
        own = f"its patches merge in cells of {shape.cell[0]} x {shape.cell[1]}"
        raise unsupported(shape.name, f"{own}, not {cell[0]} x {cell[1]}")
    if shape.rotary or adapter.relative or shape.window is not None or shape.requires_grid:
        raise unsupported(shape.name, "merging in cells needs positions that are added at the entry only")
    try:
        shape = replace(shape, cell=cell)
    except ValueError as error:
        raise VlmError("wrong_image_size", f"{shape.name}: {error}") from error
    return replace(adapter, shape=shape, embed=partial(_embed_cells, adapter.embed, shape), neck=None)


def _embed_cells(embed: TensorMap, shape: EncoderShape, pixel_values: Tensor) -> Tensor:
    x, prefix = embed(pixel_values), shape.num_prefix
    patches = cell_major(x[:, prefix:], shape.grid, shape.cell)
    return patches if prefix == 0 else torch.cat([x[:, :prefix], patches], dim=1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Split [B, N, heads * D] into [B, heads, N, D]."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Undo `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def unsupported(what: str, reason: str) -> VlmError:
    return VlmError("unsupported_tower", f"{what} cannot be adapted: {reason}")


def wrong_size(name: str, image_size: tuple[int, int], takes: str) -> VlmError:
    height, width = image_size
    return VlmError("wrong_image_size", f"{name} got images of {height} x {width} px but takes {takes}")
