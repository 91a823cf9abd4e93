"""Idefics3 and SmolVLM: tiles named by row and column, the whole view last, and a pixel shuffle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from vlm.families.cells import CellFamily
from vlm.families.layout import Grid, Layout, Size, Spelled, View, Views, tile_boxes

MOST_PX = 4096  # no side of a resized picture is longer


class Idefics3(CellFamily):
    """Every view is a run of visual tokens of its own, behind a tag that says where it stands."""

    model_class: ClassVar[str] = "Idefics3ForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres")
    towers: ClassVar[tuple[str, ...]] = ("idefics3_vision",)
    tower_name: ClassVar[str] = "vision_model"
    norm_name: ClassVar[str | None] = "post_layernorm"

    @property
    def cell(self) -> Grid:
        return self.config.scale_factor, self.config.scale_factor

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views == "single" or (views == "auto" and not self.processor.do_image_splitting):
            return self.whole(size)
        tiles = split_tiles(size, self.processor.size["longest_edge"], self.view_px[0])
        if tiles == (1, 1):
            return Layout("anyres", size, self.grid, self.view_px)
        return Layout("anyres", size, self.grid, self.view_px, (*tile_boxes(tiles), View()), tiles)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        split = layout.kind == "anyres"
        values = self.processor([[images[0]]], do_image_splitting=split, return_tensors="pt")["pixel_values"]
        return values[0]

    def reduce_cells(self, core: Any, cells: Tensor) -> Tensor:
        return core.connector.modality_projection(cells.flatten(2))

    def text_model(self, core: Any) -> Any:
        return core.text_model

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        around, visual = (
            self._named("fake_image_token", "<fake_token_around_image>"),
            self.visual_token("image"),
        )
        tag = self._named("global_image_token", "<global-img>")
        whole = f"{around}{tag}{visual}{around}"
        rows, columns = layout.tiles
        if not rows:
            return Spelled(whole, tuple(counts))
        lines = (
            "".join(f"{around}<row_{row}_col_{column}>{visual}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        )
        return Spelled("".join(lines) + f"\n{whole}", tuple(counts))

    def _named(self, name: str, usual: str) -> str:
        return str(getattr(self.tokenizer, name, None) or usual)


def split_tiles(size: Size, longest_px: int, tile_px: int) -> Grid:
    """Return the (rows, columns) of tiles that a picture is cut into; it is stretched to fill them."""
    height, width = _resized(size, longest_px)
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile_px) * tile_px
        height = int(width / aspect)
    else:
        height = math.ceil(height / tile_px) * tile_px
        width = int(height * aspect)
    return math.ceil(height / tile_px), math.ceil(width / tile_px)


def _resized(size: Size, longest_px: int) -> Size:
    """Return the size of a picture whose longest side is resized; the other side is made even."""
    height, width = size
    aspect = width / height
    if width >= height:
        width, height = longest_px, _even(int(longest_px / aspect))
        if width > MOST_PX:
            width, height = MOST_PX, int(MOST_PX / (width / height))
    else:
        height, width = longest_px, _even(int(longest_px * aspect))
        if height > MOST_PX:
            height, width = MOST_PX, int(MOST_PX * (width / height))
    return max(height, 1), max(width, 1)


def _even(side: int) -> int:
    return max(side + side % 2, 1)
