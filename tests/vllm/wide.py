"""Checkpoints of the Qwen-VL families that are as small as vLLM on CPUs takes them: heads of 32 channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vlm.families import end_by_a_token, write_family

SECTIONS = {"qwen2_5_vl": [4, 6, 6], "qwen3_vl": [8, 4, 4]}


def write_wide(folder: Path, name: str) -> Path:
    """Write a checkpoint of a family whose language model has one key for two heads of 32 channels."""

    def widen(config: Any) -> None:
        text = config.text_config
        text.hidden_size, text.head_dim = 64, 32
        text.num_attention_heads, text.num_key_value_heads = 2, 1
        text.rope_parameters = {**text.rope_parameters, "mrope_section": SECTIONS[name]}
        config.vision_config.out_hidden_size = 64

    return end_by_a_token(write_family(folder, name, change=widen))
