"""SigLIP and SigLIP 2 (NaFlex) of transformers as adapters: no class token, absolute positions.

An image is one whole grid of patches here: no padding, no mask.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Siglip2VisionModel, SiglipVisionModel

from vlm.adapters import hugging_face
from vlm.adapters.adapter import Grid, ViTAdapter, wrong_size


def adapt_siglip(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    hugging_face.require_plain_forward(model, SiglipVisionModel)
    side = model.config.image_size // model.config.patch_size
    if image_size is not None:
        _require_built_size(model, image_size)
    return _adapter(model, (side, side), partial(_embed_siglip, model))


def adapt_siglip2(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images whose sides are multiples of the patch size; positions are resized as in the library."""
    hugging_face.require_plain_forward(model, Siglip2VisionModel)
    side = model.embeddings.position_embedding_size
    grid = (side, side) if image_size is None else _whole_patches(model, image_size)
    return _adapter(model, grid, partial(_embed_siglip2, model, grid))


def _adapter(model: Any, grid: Grid, embed: Any) -> ViTAdapter:
    return ViTAdapter(
        shape=hugging_face.shape(model, grid),
        embed=embed,
        blocks=hugging_face.clip_blocks(model),
        finish=model.post_layernorm,
        passed_by=hugging_face.passed_by(model),
    )


def _embed_siglip(model: Any, pixel_values: Tensor) -> Tensor:
    _require_built_size(model, (pixel_values.shape[-2], pixel_values.shape[-1]))
    return model.embeddings(pixel_values)


def _embed_siglip2(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    rows, columns = _whole_patches(model, (pixel_values.shape[-2], pixel_values.shape[-1]))
    if (rows, columns) != grid:
        takes = f"{grid[0]} x {grid[1]} patches: adapt the model for this size"
        raise wrong_size(type(model).__name__, (pixel_values.shape[-2], pixel_values.shape[-1]), takes)
    patches = pixel_values.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # [B, 3, rows, p, columns, p]
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # [B, patches, p * p * 3]
    # A shape on the CPU costs no synchronisation, and one row serves the whole batch.
    embeddings, one = model.embeddings, torch.tensor([[rows, columns]])
    side = embeddings.position_embedding_size
    table = embeddings.position_embedding.weight.reshape(side, side, -1)
    positions = embeddings.resize_positional_embeddings(table, one, max_length=rows * columns)  # pyright: ignore[reportArgumentType]
    return embeddings.patch_embedding(patches.to(table.dtype)) + positions


def _whole_patches(model: Any, image_size: tuple[int, int]) -> Grid:
    patch = model.embeddings.patch_size
    (rows, bottom), (columns, right) = divmod(image_size[0], patch), divmod(image_size[1], patch)
    if bottom or right:
        raise wrong_size(type(model).__name__, image_size, f"sides that are multiples of {patch} px")
    return rows, columns


def _require_built_size(model: Any, image_size: tuple[int, int]) -> None:
    side, patch = model.config.image_size, model.config.patch_size
    if any(got // patch != side // patch for got in image_size):
        raise wrong_size(type(model).__name__, image_size, f"{side} x {side} px")
