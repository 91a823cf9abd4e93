"""SmolVLM and SmolVLM2: Idefics3 with other names, and videos whose frames are told apart by their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from PIL import Image
from torch import Tensor

from vlm.families.idefics3 import Idefics3
from vlm.families.layout import Layout, Size, Spelled, View, Views
from vlm.families.video import FRAMES_PER_S, OPTIONS, as_video, frame_times
from vlm.families.words import in_words


class SmolVlm(Idefics3):
    """The frames of a video are whole views, each with its minute and second."""

    model_class: ClassVar[str] = "SmolVLMForConditionalGeneration"
    kinds: ClassVar[tuple[Views, ...]] = ("single", "anyres", "video")
    towers: ClassVar[tuple[str, ...]] = ("smolvlm_vision",)

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        frames = tuple(View(frames=(index,)) for index in range(len(sizes)))
        return Layout("video", sizes[0], self.grid, self.view_px, frames)

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        if layout.kind != "video":
            return super().pixels(images, layout)
        return self.video_processor(as_video(images), **OPTIONS)["pixel_values"][0]

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        return {"image": self.visual_token("image"), "video": self._named("video_token", "<video>")}

    @property
    def visual_token_ids(self) -> tuple[int, ...]:
        return (self.image_token_id,)

    def visual_token(self, modality: str) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        if layout.kind != "video":
            return super().spell(layout, counts)
        whole = super().spell(self.whole(layout.size), counts[:1]).text
        number, times = len(counts), frame_times(len(counts))
        length = timedelta(seconds=int(number / FRAMES_PER_S))
        begin = "You are provided the following series of "
        begin += f"{in_words(number)} frames from a {length} [H:MM:SS] video.\n"
        frames = (f"\nFrame from {int(s // 60):02d}:{int(s % 60):02d}:{whole}" for s in times)
        return Spelled(f"{begin}{''.join(frames)}\n\n", tuple(counts), "video")
