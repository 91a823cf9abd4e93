"""LLaVA-OneVision: one view, a whole view with tiles, several images, or the frames of a video.

Its processor cuts a single image into tiles, pads several images to squares, and pools the frames of a video
from 27 x 27 to 14 x 14 tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tosa import MergePlan, Tokens, recover
from vlm.families.agreement import require_pinpoints, require_side
from vlm.families.anyres import adds_tokens, anyres_layout, count_tiles, pack
from vlm.families.family import Family, kept_grid, split_views, without_prefix
from vlm.families.layout import Grid, Layout, Size, View, Views, Visual, padded_box
from vlm.families.settings import processor_json, read_settings
from vlm.model import ImageSettings, VlmError
from vlm.preprocess import square_views


class LlavaOnevision(Family):
    """A SigLIP tower, a projector of single tokens, and a newline behind each image or row of tokens."""

    model_class: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres", "video")
    towers: ClassVar[tuple[str, ...]] = ("siglip_vision_model",)

    def require_supported(self) -> None:
        super().require_supported()
        said = self.config.vision_aspect_ratio
        if not re.fullmatch(r"anyres_max_[1-9]\d*", str(said)):
            message = (
                f'its vision_aspect_ratio is "{said}"; LLaVA-OneVision runs with anyres_max_ and a number'
            )
            raise VlmError("unsupported_model", message)

    def require_agreement(self) -> None:
        """Compare what the files say, without the seconds that an image processor takes to import."""
        assert self.folder is not None, "a family without a folder has no image settings"
        self.look_for_videos()
        image, video = (processor_json(self.folder, kind) for kind in ("image", "video"))
        usual = type(self.config)().image_grid_pinpoints
        require_pinpoints(image.get("image_grid_pinpoints", usual), self.config.image_grid_pinpoints)
        require_side(video.get("size") or {}, self.view_px)

    @cached_property
    def settings(self) -> ImageSettings:
        """Read how the square view is made, without the seconds that an image processor takes to import."""
        assert self.folder is not None, "a family without a folder has no image settings"
        try:
            return read_settings(self.folder, self.view_px)
        except KeyError:  # what is not written, the image processor knows
            return self._settings_of(self.processor)

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views == "single":
            return self.whole(size)
        if views == "anyres" or num_images == 1:
            return anyres_layout(size, self.config.image_grid_pinpoints, self.view_px, self.grid)
        return Layout("native", size, self.grid, self.view_px, (View(padded_box(size)),))

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        frames = tuple(View(frames=(index,)) for index in range(len(sizes)))
        return Layout("video", sizes[0], self.grid, self.view_px, frames)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        match layout.kind:
            case "anyres":
                return self._processed(images[0])
            case "native":
                return square_views(self.settings, [self._padded(images[0])])
        return square_views(self.video_settings if layout.kind == "video" else self.settings, images)

    def _padded(self, image: Image.Image) -> Image.Image:
        """Put bars of the mean colour beside an image, as the processor does with several."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        side = max(rgb.size)
        colour = tuple(int(value * 255) for value in self.settings.mean)
        square = Image.new("RGB", (side, side), colour)
        square.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
        return square

    def recovers(self, layout: Layout, plan: MergePlan) -> bool:
        """Pool frames and tiles as the model does where merging leaves more tokens than that."""
        if layout.kind == "anyres":
            return adds_tokens(layout, plan, self.budget)
        return layout.kind == "video" and math.prod(self._pooled) < plan.tokens_out < plan.tokens_in

    def patch_rows(self, layout: Layout, source: Tensor) -> Tensor | None:
        return source if layout.kind in ("single", "native") else None

    @property
    def separator_rows(self) -> int:
        return 1

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        if layout.kind == "video":
            return (len(layout.views) * min(plan.tokens_out, math.prod(self._pooled)) + 1,)
        if layout.kind == "anyres":
            return (count_tiles(layout, plan, self.budget),)
        return (plan.tokens_out + 1,)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        merged = split_views(layouts, core.multi_modal_projector(without_prefix(tokens)))
        patches = None
        if any(self.recovers(layout, plan) for layout in layouts):
            patches = split_views(layouts, core.multi_modal_projector(recover(tokens)))
        rows = []
        for at, (layout, features) in enumerate(zip(layouts, merged, strict=True)):
            if layout.kind == "anyres":
                grid = kept_grid(plan)
                if self.recovers(layout, plan):
                    assert patches is not None
                    features, grid = patches[at], plan.shape.grid
                rows.append(pack(features, layout, grid, core.image_newline, self.budget))
                continue
            if layout.kind == "video" and plan.tokens_out > math.prod(self._pooled):
                features = core.apply_pooling(features if patches is None else patches[at])
            rows.append(torch.cat((features.flatten(0, 1), core.image_newline[None].to(features.dtype))))
        return [Visual(row) for row in rows]

    @property
    def budget(self) -> int:
        """Return how many tokens the tiles of one image may have before they are pooled."""
        most = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        return most * self.grid[0] ** 2

    @property
    def _pooled(self) -> Grid:
        """Return the grid of a frame of a video behind the pooling."""
        return math.ceil(self.grid[0] / 2), math.ceil(self.grid[1] / 2)
