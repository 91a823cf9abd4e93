"""BEiT of transformers as an adapter, with a bias of relative positions, per layer or shared.

The bias follows the kept token: two merged tokens attend to each other as the two patches would whose places
they keep (`vlm.adapters.relative`), with methods that keep a grid too. The class token is protected.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import BeitModel

from tosa import Tokens, attention
from vlm.adapters import hugging_face
from vlm.adapters.adapter import Block, Grid, TensorMap, ViTAdapter, join_heads, same
from vlm.adapters.hugging_face import attend, attention_site, branch, layer_site
from vlm.adapters.relative import bias_between


def adapt_beit(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of any size, as the library does, which resizes positions and biases."""
    hugging_face.require_plain_forward(model, BeitModel)
    patches, config = model.embeddings.patch_embeddings, model.config
    patch = hugging_face.pair(patches.patch_size)
    size = hugging_face.pair(patches.image_size) if image_size is None else image_size
    grid = hugging_face.whole_patches(model, size, patch)
    relative = config.use_relative_position_bias or config.use_shared_relative_position_bias
    layers = hugging_face.named_layers(model)
    return ViTAdapter(
        shape=hugging_face.shape(model, grid, 1),
        embed=partial(_embed, model, grid, patch),
        blocks=tuple(_block(layer, name, model.shared_position_bias, grid) for name, layer in layers),
        finish=model.layernorm,
        passed_by=hugging_face.passed_by(model),
        relative=relative,
    )


def _embed(model: Any, grid: Grid, patch: Grid, pixel_values: Tensor) -> Tensor:
    hugging_face.require_grid(model, grid, patch, pixel_values)
    return model.embeddings(pixel_values)


def _block(layer: Any, name: str, shared: Any, grid: Grid) -> Block:
    biases = tuple(each for each in (layer.relative_position_bias, shared) if each is not None)
    site = attention_site(layer.attention, f"{name}.attention")
    scale1, scale2 = _scale(layer.lambda_1), _scale(layer.lambda_2)
    return Block(
        layer.layernorm_before,
        partial(attend, site, partial(_attention, biases, grid), (layer.dropout, scale1, layer.drop_path)),
        layer.layernorm_after,
        partial(branch, (layer.mlp, layer.dropout, scale2, layer.drop_path)),
        layer_site(layer, name, rest=()),
    )


def _scale(factor: Tensor | float) -> TensorMap:
    """Return LayerScale by a bare parameter; the library has the number 1 where there is none."""
    return partial(torch.mul, factor) if isinstance(factor, Tensor) else same


def _attention(
    biases: tuple[Any, ...], grid: Grid, module: Any, tokens: Tokens, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    q, k, v = hugging_face.queries_keys_values(module, x)
    bias = bias_between(tokens, _entry_bias(biases, grid)) if biases else None
    return module.o_proj(join_heads(attention(q, k, v, size, bias))), k


def _entry_bias(biases: tuple[Any, ...], grid: Grid) -> Tensor:
    """Add up the biases between all patches of the entry grid: [heads, 1 + P, 1 + P]."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return _sum_of(biases, grid)
    # transformers keeps an index for each grid: made under inference, it could not serve training.
    with torch.inference_mode(False), torch.no_grad():
        return _sum_of(biases, grid)


def _sum_of(biases: tuple[Any, ...], grid: Grid) -> Tensor:
    total, *others = (each(grid)[0] for each in biases)
    for bias in others:
        total = total + bias
    return total
