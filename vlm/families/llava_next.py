"""LLaVA-NeXT (1.6): a whole view and tiles for every image, a CLIP tower, a projector of single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tosa import MergePlan, Tokens
from vlm.families.agreement import require_pinpoints
from vlm.families.anyres import anyres_layout, count_packed, pack
from vlm.families.family import Family, kept_grid, split_views, without_prefix
from vlm.families.layout import Layout, Size, Views, Visual
from vlm.preprocess import square_views


class LlavaNext(Family):
    """A newline ends each row of the tiles, and an image of a single view."""

    model_class: ClassVar[str] = "LlavaNextForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres")

    def require_supported(self) -> None:
        super().require_supported()
        self.require_no_kept_prefix()

    def require_agreement(self) -> None:
        require_pinpoints(self.processor.image_grid_pinpoints, self.config.image_grid_pinpoints)
        super().require_agreement()

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views == "single":
            return self.whole(size)
        return anyres_layout(size, self.config.image_grid_pinpoints, self.view_px, self.grid)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        return square_views(self.settings, images) if layout.kind == "single" else self._processed(images[0])

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        if layout.kind == "single":
            return (plan.tokens_out + 1,)
        return (count_packed(layout, kept_grid(plan), plan.tokens_out, None),)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        projected = split_views(layouts, core.multi_modal_projector(without_prefix(tokens)))
        return [
            Visual(_packed(core.image_newline, layout, plan, features))
            for layout, features in zip(layouts, projected, strict=True)
        ]


def _packed(newline: Tensor, layout: Layout, plan: MergePlan, features: Tensor) -> Tensor:
    if layout.kind == "single":
        return torch.cat((features[0], newline[None].to(features.dtype)))
    return pack(features, layout, kept_grid(plan), newline, None)
