"""Answer one prompt about visual features: project, and decode alone in the batch.

Nothing is kept on the model between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tosa import Tokens
from vlm.decoding import Decoding, unspellable
from vlm.families.layout import Visual
from vlm.model import Vlm, VlmError
from vlm.prompt import answer_text
from vlm.sampling import GenerationParams


@dataclass(frozen=True)
class Generation:
    """An answer. `token_ids` are without the stop token; "length" means that the answer was truncated."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]


@torch.inference_mode()
def features(vlm: Vlm, tokens: Tokens) -> Tensor:
    """Project tokens into the language model, image_newline after each image: [B, N + 1, D]."""
    projected = vlm.core.multi_modal_projector(tokens.x[:, tokens.num_prefix :])
    newline = vlm.core.image_newline.to(projected.dtype).expand(len(projected), 1, -1)
    return torch.cat((projected, newline), dim=1)


def generate(
    vlm: Vlm,
    input_ids: Tensor,
    features: Tensor | Sequence[Visual],
    params: GenerationParams | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Answer one prompt [1, T] with the features [n, M, D], or the visuals, of its placeholders in order.

    `should_stop` is called after every token but the last; True ends the answer as "cancelled".
    Raises VlmError: prompt_too_long, non_finite if the model gives NaN or infinity, or invalid_schema if no
    token of the model fits the grammar. `Decoding` does this for several prompts at once.
    """
    decoding = Decoding(vlm, [input_ids], [features], [params or GenerationParams()])
    while decoding.active:
        decoding.step()
        if decoding.active and should_stop is not None and should_stop():
            decoding.cancel(decoding.active)
    (row,) = decoding.rows
    if row.finish_reason == "non_finite":
        raise VlmError("non_finite", f"{vlm.id} gave NaN or infinity instead of the next token")
    if row.finish_reason == "unspellable":
        raise unspellable()
    assert row.finish_reason is not None, "an inactive row has ended"
    text = answer_text(vlm, row.token_ids) if row.guided_text is None else row.guided_text
    return Generation(text, tuple(row.token_ids), row.finish_reason)
