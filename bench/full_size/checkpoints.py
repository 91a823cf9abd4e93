"""Checkpoints of the real widths and depths of published models, with random weights in bfloat16.

Config, processor and template are laid out as the published ones; the tokenizer spells bytes. The weights are
spread as an untrained model's, so that every activation is finite. How long a model takes does not depend on
their values, and what it answers means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from tests.vlm.families import CASES, write_processor

Size = Literal["full", "tiny"]
SIZES: tuple[Size, ...] = ("full", "tiny")
STD = 0.02
POOL = 16_777_259  # a prime, so that rows of no width repeat


@dataclass(frozen=True)
class Shape:
    """Name the family of a model, and what its config says of its widths and depths."""

    family: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    top: Mapping[str, Any] = field(default_factory=dict)


SHAPES = {
    "llava-onevision-0.5b": Shape(
        "llava_onevision",
        vision={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
        },
        text={
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 152000,
        },
        top={"tie_word_embeddings": True},
    ),
    "smolvlm2-500m": Shape(
        "smolvlm",
        vision={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        text={
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "vocab_size": 49280,
            "max_position_embeddings": 8192,
        },
        top={"scale_factor": 4},
    ),
    "qwen3-vl-2b": Shape(
        "qwen3_vl",
        vision={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "depth": 24,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        text={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [24, 20, 20],
                "rope_theta": 5e6,
                "mrope_interleaved": True,
            },
        },
        top={"tie_word_embeddings": True},
    ),
}
"""After llava-hf/llava-onevision-qwen2-0.5b-ov-hf, HuggingFaceTB/SmolVLM2-500M-Video-Instruct and
Qwen/Qwen3-VL-2B-Instruct."""


@dataclass(frozen=True)
class Written:
    """Describe a checkpoint that was written: its config, and how many parameters it has."""

    config: Any
    parameters: int


def write_checkpoint(folder: Path, name: str, size: Size = "full", seed: int = 0) -> Written:
    """Write a checkpoint. size: "tiny" has the widths and pictures of the tests."""
    config = write_all_but_weights(folder, name, size)
    model = without_weights(name, config).to(torch.bfloat16).to_empty(device="cpu")
    model.tie_weights()
    _fill(model, seed)
    tokens = len(transformers.AutoTokenizer.from_pretrained(folder))
    with torch.no_grad():  # logits of 0, never the largest, where no token is
        model.get_output_embeddings().weight[tokens:] = 0
    model.generation_config.eos_token_id = config.text_config.vocab_size - 1
    model.save_pretrained(folder)
    return Written(config, sum(weight.numel() for weight in model.parameters()))


def write_all_but_weights(folder: Path, name: str, size: Size) -> Any:
    """Write processor, tokenizer and template; return the config of the model."""
    shape, is_full = SHAPES[name], size == "full"
    change = (lambda config: _resize(config, shape)) if is_full else None
    return write_processor(folder, shape.family, is_full, change)[0]


def without_weights(name: str, config: Any) -> Any:
    """Build a model that takes no memory."""
    with torch.device("meta"):
        return getattr(transformers, CASES[SHAPES[name].family].model_class)(config)


def _resize(config: Any, shape: Shape) -> None:
    """Give a config the widths and depths of a shape."""
    for part, values in ((config, shape.top), (config.vision_config, shape.vision)):
        for name, value in values.items():
            setattr(part, name, value)
    text = config.text_config
    for name, value in shape.text.items():
        setattr(text, name, value)
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = ["full_attention"] * text.num_hidden_layers


@torch.no_grad()
def _fill(model: Any, seed: int) -> None:
    """Set norms to 1, biases to 0, and all else to random numbers, drawn once for all: it takes seconds."""
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(seed)).mul_(STD).bfloat16()
    begin = 0
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
        elif weight.dim() == 1 and name.endswith("weight"):
            weight.fill_(1)
        else:
            begin = _copy_cyclically(weight.view(-1), pool, begin)


def _copy_cyclically(flat: Tensor, pool: Tensor, begin: int) -> int:
    """Fill a tensor from a place in the pool on, again and again; return the place behind the end."""
    done = 0
    while done < len(flat):
        part = pool[begin : begin + len(flat) - done]
        flat[done : done + len(part)] = part
        done, begin = done + len(part), (begin + len(part)) % len(pool)
    return begin
