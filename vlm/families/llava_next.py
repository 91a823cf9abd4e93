"""LLaVA-NeXT (1.6): a whole view and tiles for every image, a CLIP tower, a projector of single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tosa import MergePlan, Tokens, recover
from vlm.families.agreement import require_pinpoints
from vlm.families.anyres import adds_tokens, anyres_layout, count_tiles, pack
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

    def recovers(self, layout: Layout, plan: MergePlan) -> bool:
        """Go back to all patches where tiles with their bars would be more tokens than those without."""
        return layout.kind == "anyres" and adds_tokens(layout, plan, None)

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        if layout.kind == "single":
            return (plan.tokens_out + 1,)
        return (count_tiles(layout, plan, None),)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        projector, newline = core.multi_modal_projector, core.image_newline
        merged = split_views(layouts, projector(without_prefix(tokens)))
        rows = []
        for at, (layout, features) in enumerate(zip(layouts, merged, strict=True)):
            if layout.kind == "single":
                rows.append(torch.cat((features[0], newline[None].to(features.dtype))))
            elif self.recovers(layout, plan):
                patches = split_views(layouts, recover(tokens))[at]
                rows.append(pack(projector(patches), layout, plan.shape.grid, newline, None))
            else:
                rows.append(pack(features, layout, kept_grid(plan), newline, None))
        return [Visual(row) for row in rows]
