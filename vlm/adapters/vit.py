"""ViT and DeiT of transformers as adapters: a class token, DeiT also a distillation token, both protected."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import DeiTModel, ViTModel

from vlm.adapters import hugging_face
from vlm.adapters.adapter import Block, ViTAdapter, wrong_size
from vlm.adapters.hugging_face import attend, attention_site, branch, layer_site, plain_attention

_PREFIX: dict[type[Any], int] = {ViTModel: 1, DeiTModel: 2}


def adapt_vit(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of the size the model was built for; the library resizes positions only on demand."""
    hugging_face.require_plain_forward(model, *_PREFIX)
    num_prefix = next(count for kind, count in _PREFIX.items() if isinstance(model, kind))
    patches = model.embeddings.patch_embeddings
    height, width = patches.image_size
    if image_size is not None:
        _require_built_size(model, image_size)
    grid = (height // patches.patch_size[0], width // patches.patch_size[1])
    return ViTAdapter(
        shape=hugging_face.shape(model, grid, num_prefix),
        embed=partial(_embed, model),
        blocks=tuple(_block(layer, name) for name, layer in hugging_face.named_layers(model)),
        finish=model.layernorm,
        passed_by=hugging_face.passed_by(model),
    )


def _block(layer: Any, name: str) -> Block:
    site = attention_site(layer.attention, f"{name}.attention", rest=(None,))
    return Block(
        layer.layernorm_before,
        partial(attend, site, partial(plain_attention, "o_proj"), (layer.dropout,)),
        layer.layernorm_after,
        partial(branch, (layer.mlp, layer.dropout)),
        layer_site(layer, name),
    )


def _embed(model: Any, pixel_values: Tensor) -> Tensor:
    _require_built_size(model, (pixel_values.shape[-2], pixel_values.shape[-1]))
    weight = model.embeddings.patch_embeddings.projection.weight
    return model.embeddings(pixel_values.to(weight.dtype))


def _require_built_size(model: Any, image_size: tuple[int, int]) -> None:
    height, width = model.embeddings.image_size
    if image_size != (height, width):
        raise wrong_size(type(model).__name__, image_size, f"{height} x {width} px")
