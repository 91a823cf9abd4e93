"""DINOv3 (ViT) of transformers as an adapter: rotary positions; class and register tokens are protected.

A merged token is rotated by the place of the patch it leads. Methods that keep a grid get places laid out
over the smaller grid, from -1 to 1 as over the whole one, as CubistMerge does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DINOv3ViTModel

from tosa import Tokens, attention
from vlm.adapters import hugging_face
from vlm.adapters.adapter import Block, Grid, ViTAdapter, join_heads, unsupported
from vlm.adapters.hooks import PassedBy
from vlm.adapters.hugging_face import NO_MASK, attend, attention_site, branch, layer_site

Table = tuple[Tensor, Tensor]  # cosines and sines, each [P, D] or, with places per image, [B, 1, P, D]


@dataclass(frozen=True)
class Places:
    """Look up cosines and sines; `module` is the model's own, `grid` the patch grid at entry."""

    module: Any
    grid: Grid
    patch: Grid
    _tables: dict[tuple[Grid, torch.dtype], Table] = field(
        default_factory=dict, repr=False, compare=False
    )  # of this adapter only

    def table(self, tokens: Tokens, dtype: torch.dtype) -> Table:
        """Return the rows of the patch tokens there are now."""
        if tokens.grid is not None:
            return self._on(tokens.grid, dtype)
        assert tokens.position is not None, "a rotary adapter needs tokens that keep their position"
        position = tokens.position[:, tokens.num_prefix :]
        cosines, sines = self._on(self.grid, dtype)
        return cosines[position][:, None], sines[position][:, None]

    def _on(self, grid: Grid, dtype: torch.dtype) -> Table:
        if torch.compiler.is_compiling():
            return self._made(grid, dtype)
        if (grid, dtype) not in self._tables:
            with torch.inference_mode(False):  # a table made under inference must also serve training
                self._tables[grid, dtype] = self._made(grid, dtype)
        return self._tables[grid, dtype]

    def _made(self, grid: Grid, dtype: torch.dtype) -> Table:
        height, width = grid[0] * self.patch[0], grid[1] * self.patch[1]
        image = torch.empty(1, dtype=dtype, device=self.module.inv_freq.device)  # only its shape is read
        return self.module(image.expand(1, 3, height, width))


def adapt_dinov3(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Accept images of any size, as the library does."""
    hugging_face.require_plain_forward(model, DINOv3ViTModel)
    config = model.config
    drawn = (config.pos_embed_shift, config.pos_embed_jitter, config.pos_embed_rescale)
    if model.training and any(each is not None for each in drawn):
        raise unsupported(type(model).__name__, "its rotary coordinates are drawn at random while training")
    patch = hugging_face.pair(config.patch_size)
    size = hugging_face.pair(config.image_size) if image_size is None else image_size
    places = Places(model.rope_embeddings, hugging_face.whole_patches(model, size, patch), patch)
    layers = hugging_face.named_layers(model)
    mlp_size = hugging_face.mlp_size(layers[0][1].mlp, config.hidden_size)
    shape = hugging_face.shape(model, places.grid, 1 + config.num_register_tokens, mlp_size)
    return ViTAdapter(
        shape=replace(shape, rotary=True),
        embed=partial(_embed, model, places),
        blocks=tuple(_block(layer, name, places) for name, layer in layers),
        finish=model.norm,
        passed_by=(
            *hugging_face.passed_by(model),
            PassedBy(model.rope_embeddings, "rope_embeddings"),
        ),
    )


def _embed(model: Any, places: Places, pixel_values: Tensor) -> Tensor:
    hugging_face.require_grid(model, places.grid, places.patch, pixel_values)
    return model.embeddings(pixel_values)


def _block(layer: Any, name: str, places: Places) -> Block:
    site = attention_site(layer.attention, f"{name}.attention", kwargs=NO_MASK)
    return Block(
        layer.norm1,
        partial(attend, site, partial(_attention, places), (layer.layer_scale1, layer.drop_path)),
        layer.norm2,
        partial(branch, (layer.mlp, layer.layer_scale2, layer.drop_path)),
        layer_site(layer, name, rest=()),
    )


def _attention(
    places: Places, module: Any, tokens: Tokens, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    q, keys, v = hugging_face.queries_keys_values(module, x)
    table = places.table(tokens, x.dtype)
    q, k = (_rotated(part, table, tokens.num_prefix) for part in (q, keys))
    return module.o_proj(join_heads(attention(q, k, v, size))), keys


def _rotated(x: Tensor, table: Table, num_prefix: int) -> Tensor:
    """Rotate all but the prefix tokens of x [B, heads, N, D]; the halves of the channels are pairs."""
    prefix, patches = x[:, :, :num_prefix], x[:, :, num_prefix:]
    first, second = patches.chunk(2, dim=-1)
    cosines, sines = table
    return torch.cat([prefix, patches * cosines + torch.cat([-second, first], dim=-1) * sines], dim=2)
