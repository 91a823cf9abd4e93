"""CLIP of transformers as an adapter: a class token, a norm before the first layer, none behind the last.

LLaVA reads hidden state -2 of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import CLIPVisionModel

from vlm.adapters import hugging_face
from vlm.adapters.adapter import ViTAdapter, same, wrong_size


def adapt_clip(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    hugging_face.require_plain_forward(model, CLIPVisionModel)
    if image_size is not None:
        _require_built_size(model, image_size)
    side = model.config.image_size // model.config.patch_size
    return ViTAdapter(
        shape=hugging_face.shape(model, (side, side), num_prefix=1),
        embed=partial(_embed, model),
        blocks=hugging_face.clip_blocks(model),
        finish=same,  # last_hidden_state is not normalised; post_layernorm serves the pooled class token only
        passed_by=hugging_face.passed_by(model),
    )


def _embed(model: Any, pixel_values: Tensor) -> Tensor:
    _require_built_size(model, (pixel_values.shape[-2], pixel_values.shape[-1]))
    return model.pre_layrnorm(model.embeddings(pixel_values))


def _require_built_size(model: Any, image_size: tuple[int, int]) -> None:
    side = model.config.image_size
    if image_size != (side, side):
        raise wrong_size(type(model).__name__, image_size, f"{side} x {side} px")
