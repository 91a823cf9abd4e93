"""PaliGemma 1 and 2: one view, and a language model that reads the whole prompt in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tosa import MergePlan, Tokens
from vlm.families.family import split_views, without_prefix
from vlm.families.layout import Layout, Size, Views, Visual
from vlm.families.llava import Llava


class PaliGemma(Llava):
    """Positions begin at 1, logits are capped, and a prompt is images, one question and a newline."""

    model_class: ClassVar[str] = "PaliGemmaForConditionalGeneration"
    towers: ClassVar[tuple[str, ...]] = ("siglip_vision_model",)
    first_position: ClassVar[int] = 1
    adds_special: ClassVar[bool] = False
    language_refusal: ClassVar[str | None] = (
        "its prompt is read in both directions, and engines that take prompt embeddings read every prompt "
        "in one; let it answer in this process"
    )
    template: ClassVar[str | None] = (
        "{% if messages | length != 1 or messages[0]['role'] != 'user' %}"
        "{{ raise_exception('PaliGemma takes one turn') }}{% endif %}"
        "{% set parts = messages[0]['content'] %}"
        "{% for part in parts if part['type'] == 'image' %}<image>{% endfor %}{{ bos_token }}"
        "{% for part in parts if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ '\n' }}"
    )

    def squeezes(self, views: Views) -> bool:
        return True

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        return self.whole(size)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        normed = self.tower(core).post_layernorm(without_prefix(tokens))
        return [Visual(own.flatten(0, 1)) for own in split_views(layouts, core.multi_modal_projector(normed))]

    def decoder(self, core: Any) -> Any:
        return core

    def prompt_inputs(self, ids: Tensor, visuals: Sequence[Visual]) -> dict[str, Any]:
        return {"token_type_ids": torch.zeros_like(ids)}

    def logits(self, model: Any, hidden: Tensor) -> Tensor:
        logits = model.lm_head(hidden)
        cap = getattr(self.config.text_config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap
