"""Gemma 3: one view of 896 px averaged over 4 x 4 patches, and image tokens that see each other both ways.

"anyres" adds the crops that its processor calls pan and scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from vlm.families.cells import CellFamily
from vlm.families.layout import Box, Grid, Layout, Size, Spelled, View, Views, Visual
from vlm.preprocess import square_views

# What the processor of transformers crops by, where an image processor leaves it open.
CROPS = {
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}


class Gemma3(CellFamily):
    """Its processor shows the whole image, squeezed; image tokens have a type of their own."""

    model_class: ClassVar[str] = "Gemma3ForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres")
    towers: ClassVar[tuple[str, ...]] = ("siglip_vision_model",)
    norm_name: ClassVar[str | None] = "post_layernorm"
    language_refusal: ClassVar[str | None] = (
        "its visual tokens are read in both directions, and engines that take prompt embeddings read every "
        "prompt in one; let it answer in this process"
    )

    @property
    def cell(self) -> Grid:
        side = self.grid[0] // int(self.config.mm_tokens_per_image**0.5)
        return side, side

    def squeezes(self, views: Views) -> bool:
        return views != "anyres"

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views != "anyres":
            return self.whole(size)
        crops = _crops(self.processor, size)
        tiles = (0, 0) if not crops else (1, len(crops)) if size[1] >= size[0] else (len(crops), 1)
        return Layout("anyres", size, self.grid, self.view_px, (View(), *crops), tiles)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        if layout.kind == "anyres":
            return self._processed(images[0], do_pan_and_scan=True, **CROPS)
        return square_views(self.settings, images)

    def reduce_cells(self, core: Any, cells: Tensor) -> Tensor:
        projector = core.multi_modal_projector
        return projector.mm_soft_emb_norm(cells.mean(dim=2)) @ projector.mm_input_projection_weight

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        return {"image": str(self.tokenizer.convert_ids_to_tokens(self.config.boi_token_index))}

    def visual_token(self, modality: str) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        end = self.tokenizer.convert_ids_to_tokens(self.config.eoi_token_index)
        one = f"\n\n{self.placeholders['image']}{self.visual_token('image')}{end}\n\n"
        text = one
        if len(counts) > 1:
            crops = " ".join([one] * (len(counts) - 1))
            text = f"Here is the original image {one} and here are some crops to help you see better {crops}"
        return Spelled(text, tuple(counts))

    def decoder(self, core: Any) -> Any:
        return core

    def prompt_inputs(self, ids: Tensor, visuals: Sequence[Visual]) -> dict[str, Any]:
        return {"token_type_ids": self.is_visual(ids).long()}


def _crops(processor: Any, size: Size) -> tuple[View, ...]:
    """Return the crops of a picture, which the processor cuts out of a tensor of its size."""
    height, width = size
    cut = processor.pan_and_scan_batched(torch.zeros(1).expand(1, 3, height, width), **CROPS)
    across = width >= height
    views, at = [], 0
    for crop in cut:
        rows, columns = crop.shape[-2:]
        left, top = (at, 0) if across else (0, at)
        views.append(View(Box(left / width, top / height, (left + columns) / width, (top + rows) / height)))
        at += columns if across else rows
    return tuple(views)
