"""InternVL 3 and 3.5: tiles in the proportions of the image, and a pixel shuffle of 2 x 2 patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from tosa import MergePlan
from vlm.families.cells import CellFamily
from vlm.families.layout import Grid, Layout, Size, Spelled, View, Views, tile_boxes
from vlm.model import VlmError
from vlm.preprocess import square_views


class InternVL(CellFamily):
    """Tiles come first and the whole view last, all of them one run of visual tokens."""

    model_class: ClassVar[str] = "InternVLForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres", "video")
    towers: ClassVar[tuple[str, ...]] = ("internvl_vision",)
    norm_name: ClassVar[str | None] = "layernorm"

    def require_supported(self) -> None:
        super().require_supported()
        if self.feature_layer != -1:
            message = f"it reads hidden state {self.feature_layer} of its tower; InternVL runs with the last"
            raise VlmError("unsupported_model", message)

    @property
    def num_prefix(self) -> int:
        return 1

    @property
    def cell(self) -> Grid:
        side = int(1 / self.config.downsample_ratio)
        return side, side

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views == "single":
            return self.whole(size)
        tiles = self._tiles(size)
        if tiles == (1, 1):
            return Layout("anyres", size, self.grid, self.view_px, (View(),), tiles)
        return Layout("anyres", size, self.grid, self.view_px, (*tile_boxes(tiles), View()), tiles)

    def _tiles(self, size: Size) -> Grid:
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        least, most = self.processor.min_patches, self.processor.max_patches
        columns, rows = get_optimal_tiled_canvas(size, self.view_px, least, most)
        return rows, columns

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        frames = tuple(View(frames=(index,)) for index in range(len(sizes)))
        return Layout("video", sizes[0], self.grid, self.view_px, frames)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        if layout.kind == "anyres":
            return self._processed(images[0], crop_to_patches=True)
        settings = self.video_settings if layout.kind == "video" else self.settings
        return square_views(settings, images)

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        each = super().counts(layout, plan)
        return each if layout.kind == "video" else (sum(each),)

    def reduce_cells(self, core: Any, cells: Tensor) -> Tensor:
        return core.multi_modal_projector(cells.flatten(2))

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        return {"image": self.visual_token("image"), "video": str(self.tokenizer.video_token)}

    @property
    def visual_token_ids(self) -> tuple[int, ...]:
        return (self.image_token_id,)

    def visual_token(self, modality: str) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        begin, end = self.tokenizer.start_image_token, self.tokenizer.end_image_token
        one = f"{begin}{self.visual_token('image')}{end}"
        if layout.kind != "video":
            return Spelled(one, tuple(counts))
        text = "\n".join(f"Frame{number}: {one}" for number in range(1, len(counts) + 1))
        return Spelled(text, tuple(counts), "video")
