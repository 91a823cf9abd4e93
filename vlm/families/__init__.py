"""Families of vision-language models: one row for each `model_type` that can be loaded.

A module of a family is imported only when a checkpoint of it is loaded.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from vlm.families.family import Family
from vlm.families.layout import VIEWS, Box, Layout, Spelled, View, Views, Visual
from vlm.families.visual_runs import VisualRun
from vlm.model import VlmError

# model_type -> (module of the family, its class)
FAMILIES = {
    "llava_onevision": ("llava_onevision", "LlavaOnevision"),
    "llava": ("llava", "Llava"),
    "llava_next": ("llava_next", "LlavaNext"),
    "paligemma": ("paligemma", "PaliGemma"),
    "gemma3": ("gemma3", "Gemma3"),
    "internvl": ("internvl", "InternVL"),
    "idefics3": ("idefics3", "Idefics3"),
    "smolvlm": ("smolvlm", "SmolVlm"),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen25VL"),
    "qwen3_vl": ("qwen3_vl", "Qwen3VL"),
    "qwen3_5": ("qwen3_5", "Qwen35"),
}


def family_class(model_type: str) -> type[Family]:
    """Return the family of a model type. Raises VlmError (unsupported_model) for an unknown one."""
    if model_type not in FAMILIES:
        message = f"model type {model_type} cannot be loaded; {', '.join(FAMILIES)} can"
        raise VlmError("unsupported_model", message, choices=tuple(FAMILIES))
    module, name = FAMILIES[model_type]
    return getattr(import_module(f"vlm.families.{module}"), name)


def family_of(config: Any, folder: Path | None = None, tokenizer: Any = None) -> Family:
    """Describe a checkpoint by its config; folder and tokenizer are for pictures and prompts."""
    return family_class(config.model_type)(config, folder, tokenizer)


__all__ = [
    "FAMILIES",
    "VIEWS",
    "Box",
    "Family",
    "Layout",
    "Spelled",
    "View",
    "Views",
    "Visual",
    "VisualRun",
    "family_class",
    "family_of",
]
