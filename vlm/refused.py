"""Why a checkpoint is not a vision-language model that runs here, and what to do, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm.families import FAMILIES
from vlm.model import VlmError

CONVERTED = {
    "internvl_chat": "OpenGVLab/InternVL3-1B-hf and its like",
    "llava_llama": "llava-hf/llava-1.5-7b-hf and its like",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf and its like",
    "llava_qwen": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf and its like",
}
"""Model types of code outside transformers, and the checkpoints that were converted to its classes."""


def require_family(source: str, raw: Mapping[str, Any]) -> str:
    """Return the model type of a config.json. Raises VlmError (unsupported_model) if it does not load."""
    kind = raw.get("model_type", "of unknown type")
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    known = ", ".join(FAMILIES)
    message = f"{source} is {_described(raw, kind)}; only these model types can be loaded: {known}"
    raise VlmError("unsupported_model", message, choices=tuple(FAMILIES))


def _described(raw: Mapping[str, Any], kind: Any) -> str:
    if not isinstance(kind, str):
        return f"of model type {kind}"
    if kind in CONVERTED:
        return f"{kind}, which is not in transformers (use a conversion: {CONVERTED[kind]})"
    if "vision_config" in raw:
        return kind
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    is_text = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if is_text and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return f"{kind}, a language model without a vision tower, which cannot see images"
    if kind.endswith("vision_model") or (raw.get("image_size") and raw.get("patch_size")):
        return f"{kind}, a vision tower without a language model (tosa_encode of vlm merges in towers)"
    return kind
