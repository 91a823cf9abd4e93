"""Floating-point operations of one answer's first token: two for a multiply-add, matching not counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tosa import MergeSpec, make_plan
from vlm.families import Family, Layout


def vision_flops(family: Family, layouts: Sequence[Layout], spec: MergeSpec) -> int:
    """Count what the layers of the tower do for all views of some pictures."""
    return sum(len(each.views) * make_plan(spec, family.shape(each)).flops() for each in layouts)


def prefill_flops(text: Any, tokens: int) -> int:
    """Count what a language model of Qwen's or Llama's kind does to read a prompt. text: its config.

    The logits are those behind the last token alone; a token attends to those before it and to itself.
    """
    hidden, heads = text.hidden_size, text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    projected = hidden * head_dim * (2 * heads + 2 * text.num_key_value_heads)
    mlp = 3 * hidden * text.intermediate_size
    attended = heads * head_dim * (tokens + 1)  # of the products with keys and values, half is masked
    layers = text.num_hidden_layers * tokens * (projected + mlp + attended)
    return 2 * (layers + hidden * text.vocab_size)
