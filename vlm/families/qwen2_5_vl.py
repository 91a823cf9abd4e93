"""Qwen2.5-VL: a tower that attends inside windows, and videos whose times are positions."""

from __future__ import annotations

from typing import Any, ClassVar

from tosa import MergePlan
from vlm.families.layout import Layout, Size
from vlm.families.qwen_vl import QwenVL
from vlm.families.video import FRAMES_PER_S
from vlm.families.visual_runs import Steps


class Qwen25VL(QwenVL):
    """A video is one run of visual tokens."""

    model_class: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"

    def _tower_class(self) -> Any:
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
            Qwen2_5_VisionTransformerPretrainedModel,
        )

        return Qwen2_5_VisionTransformerPretrainedModel

    def _resized_video(self, size: Size, num_frames: int) -> Size:
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

        least, most = self.video_processor.size["shortest_edge"], self.video_processor.size["longest_edge"]
        return smart_resize(*size, factor=self._block_px, min_pixels=least, max_pixels=most)

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        return (sum(super().counts(layout, plan)),)

    @property
    def steps(self) -> Steps:
        seconds = self.vision.temporal_patch_size / FRAMES_PER_S
        return Steps(seconds, self.vision.tokens_per_second)
