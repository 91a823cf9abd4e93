"""Qwen3-VL: features of earlier layers too (deepstack), and videos with their times in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlm.families.layout import Layout, Size, Spelled, Visual
from vlm.families.qwen_vl import QwenVL
from vlm.families.video import frame_times
from vlm.model import VlmError


class Qwen3VL(QwenVL):
    """Every two frames of a video are a run of visual tokens behind their time."""

    model_class: ClassVar[str] = "Qwen3VLForConditionalGeneration"

    def _tower_class(self) -> Any:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

        return Qwen3VLVisionModel

    def _resized_video(self, size: Size, num_frames: int) -> Size:
        from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

        together = self.vision.temporal_patch_size
        if num_frames < together:
            message = f"a video needs {together} frames or more here: ask for other views of one image."
            raise VlmError("unsupported_image", message, field="image", limit=together)
        processor, factor = self.video_processor, self._block_px
        least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
        if processor.cap_pixels_per_frame:
            frame = min(processor.max_video_tokens * factor**2, most // num_frames)
            most = max(frame, int(least * 1.05)) * num_frames
        options = {"temporal_factor": together, "factor": factor, "min_pixels": least, "max_pixels": most}
        return smart_resize(num_frames, *size, **options)

    @property
    def num_levels(self) -> int:
        return len(self.vision.deepstack_visual_indexes)

    def level_layers(self, core: Any) -> tuple[int, ...]:
        return tuple(self.tower(core).deepstack_visual_indexes)

    def level_mergers(self, core: Any) -> Sequence[Any]:
        return self.tower(core).deepstack_merger_list

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        if layout.kind != "video":
            return super().spell(layout, counts)
        begin, end = (
            self.tokenizer.convert_ids_to_tokens(id_)
            for id_ in (self.config.vision_start_token_id, self.config.vision_end_token_id)
        )
        times = frame_times(layout.num_frames)
        means = (sum(times[at] for at in view.frames) / len(view.frames) for view in layout.views)
        visual = self.visual_token("video")
        text = "".join(f"<{time:.1f} seconds>{begin}{visual}{end}" for time in means)
        return Spelled(text, tuple(counts), "video")

    def prompt_inputs(self, ids: Tensor, visuals: Sequence[Visual]) -> dict[str, Any]:
        if not visuals or not visuals[0].deepstack:
            return {}
        levels = zip(*(visual.deepstack for visual in visuals), strict=True)
        deep = [torch.cat(level) for level in levels]
        return {"visual_pos_masks": self.is_visual(ids), "deepstack_visual_embeds": deep}
