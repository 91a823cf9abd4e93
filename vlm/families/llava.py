"""LLaVA 1.5: one view, a CLIP or SigLIP tower, and a projector of single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tosa import MergePlan, Tokens
from vlm.families.family import Family, split_views
from vlm.families.layout import Layout, Size, View, Views, Visual, cropped_box, padded_box
from vlm.preprocess import square_views


class Llava(Family):
    """Its processor shows the middle square of an image; "single" shows all of it, squeezed."""

    model_class: ClassVar[str] = "LlavaForConditionalGeneration"

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        if views == "single":
            return self.whole(size)
        processor = self.processor
        box = padded_box(size) if getattr(processor, "do_pad", False) else cropped_box(size)
        if not processor.do_center_crop and "shortest_edge" not in dict(processor.size):
            return self.whole(size)
        return Layout("native", size, self.grid, self.view_px, (View(box),))

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        if layout.kind == "native":
            return self._processed(images[0])
        return square_views(self.settings, images)

    def patch_rows(self, layout: Layout, source: Tensor) -> Tensor | None:
        return torch.where(source < 0, -1, source - self.num_prefix + self.kept_prefix)

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        return (plan.tokens_out + self.kept_prefix,)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        features = core.multi_modal_projector(self.read_tokens(tokens))
        return [Visual(own.flatten(0, 1)) for own in split_views(layouts, features)]
