"""The towers of Idefics3 and SmolVLM as adapters: SigLIP with positions by fraction of the image's sides.

An image is one whole grid of patches here: no padding, no mask.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from vlm.adapters import hugging_face
from vlm.adapters.adapter import Grid, ViTAdapter


def adapt_idefics3(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of any size, as the library does."""
    return _adapter(model, Idefics3VisionTransformer, image_size)


def adapt_smolvlm(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of any size, as the library does."""
    return _adapter(model, SmolVLMVisionTransformer, image_size)


def _adapter(model: Any, kind: type[Any], image_size: tuple[int, int] | None) -> ViTAdapter:
    hugging_face.require_plain_forward(model, kind)
    patch = hugging_face.pair(model.config.patch_size)
    size = hugging_face.pair(model.config.image_size) if image_size is None else image_size
    grid = hugging_face.whole_patches(model, size, patch)
    return ViTAdapter(
        shape=hugging_face.shape(model, grid),
        embed=partial(_embed, model, grid, patch),
        blocks=hugging_face.clip_blocks(model),
        finish=model.post_layernorm,
        passed_by=hugging_face.passed_by(model),
    )


def _embed(model: Any, grid: Grid, patch: Grid, pixel_values: Tensor) -> Tensor:
    hugging_face.require_grid(model, grid, patch, pixel_values)
    full = torch.ones(pixel_values.shape[0], *grid, dtype=torch.bool, device=pixel_values.device)
    return model.embeddings(pixel_values=pixel_values, patch_attention_mask=full)
