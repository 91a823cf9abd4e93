"""timm's NaFlexVit as an adapter: images of any whole patches, blocks of VisionTransformer or of Eva.

An image is one whole grid of patches here. Batches that timm's NaFlex loader patchified and padded, with
images of several sizes in one, are not taken.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models.eva import EvaBlock
from timm.models.naflexvit import NaFlexVit
from torch import Tensor

from vlm.adapters import eva, timm_parts, timm_vit
from vlm.adapters.adapter import Block, Grid, ViTAdapter, unsupported, wrong_size
from vlm.adapters.rotary import Rotary, rotary


def adapt_naflex(model: Any, image_size: tuple[int, int] | None) -> ViTAdapter:
    """Adapt learned, factorized or rotary positions, or raise.

    A token keeps the rotary position of the patch it leads; a merged grid gets positions of its own.
    """
    _require_plain(model)
    grid = _grid(model, image_size)
    places = rotary(model.rope, grid, type(model).__name__)
    blocks = tuple(_block(layer, index, places) for index, layer in enumerate(model.blocks))
    shape = timm_parts.encoder_shape(model, grid, rotary=places is not None)
    embed = partial(_embed, model, grid)
    return ViTAdapter(shape, embed, blocks, model.norm, passed_by=timm_parts.passed_by(model))


def _require_plain(model: Any) -> None:
    name = type(model).__name__
    if type(model).forward_features is not NaFlexVit.forward_features:
        raise unsupported(name, "it has its own forward_features, unlike NaFlexVit")
    if model.training and model.patch_drop is not None:
        raise unsupported(name, "patch dropout is on while training")


def _block(layer: Any, index: int, places: Rotary | None) -> Block:
    return eva.block(layer, index, places) if isinstance(layer, EvaBlock) else timm_vit.block(layer, index)


def _embed(model: Any, grid: Grid, pixel_values: Tensor) -> Tensor:
    image_size = (pixel_values.shape[-2], pixel_values.shape[-1])
    if _grid(model, image_size) != grid:
        takes = f"{grid[0]} x {grid[1]} patches: adapt the model for this size"
        raise wrong_size(type(model).__name__, image_size, takes)
    x, _ = model.embeds(pixel_values)
    return model.norm_pre(x)


def _grid(model: Any, image_size: tuple[int, int] | None) -> Grid:
    embeds, name = model.embeds, type(model).__name__
    if image_size is None:
        if embeds.pos_embed_grid_size is None:
            raise unsupported(name, "it was built without an image size: say which is to come")
        return embeds.pos_embed_grid_size
    rows, columns = embeds.patch_size
    if not embeds.dynamic_img_pad and (image_size[0] % rows or image_size[1] % columns):
        raise wrong_size(name, image_size, f"multiples of {rows} x {columns} px")
    return embeds.dynamic_feat_size(image_size)
