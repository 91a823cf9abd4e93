"""Qwen3.5: Qwen3-VL without earlier layers, and a language model of which most layers are recurrent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from vlm.families.qwen3_vl import Qwen3VL


class Qwen35(Qwen3VL):
    """Padding is masked in recurrent layers too, so that prompts are still read together."""

    model_class: ClassVar[str] = "Qwen3_5ForConditionalGeneration"
    language_refusal: ClassVar[str | None] = (
        "vLLM 0.32 runs its recurrent layers on CPUs in bfloat16 only (CPU GDN attention requires BF16), so "
        "that nobody has compared answers; let it answer in this process"
    )

    def _tower_class(self) -> Any:
        from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel

        return Qwen3_5VisionModel

    @property
    def num_levels(self) -> int:
        return 0

    def level_layers(self, core: Any) -> tuple[int, ...]:
        return ()

    def level_mergers(self, core: Any) -> Sequence[Any]:
        return ()
