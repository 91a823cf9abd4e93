"""Visual features and a prompt to an answer: project, prefill, decode with a cache made for this call.

Knows neither pictures nor merging; nothing is kept on the model between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from tosa import Tokens
from vlm.language import embed, new_cache, next_logits
from vlm.model import Vlm, VlmError
from vlm.prompt import answer_text


@dataclass(frozen=True)
class GenerationParams:
    """How an answer is decoded. temperature 0 is greedy; `top_p` and `seed` matter only above 0."""

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise VlmError(
                "invalid_generation", f"max_new_tokens must be at least 1, not {self.max_new_tokens}"
            )
        if not self.temperature >= 0:
            raise VlmError("invalid_generation", f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise VlmError("invalid_generation", f"top_p must be above 0 and at most 1, not {self.top_p}")


@dataclass(frozen=True)
class Prefill:
    """The language model after the prompt: its cache, and the logits [1, vocabulary] of the next token."""

    cache: DynamicCache
    logits: Tensor
    prompt_tokens: int


@dataclass(frozen=True)
class Generation:
    """An answer. `token_ids` are without the stop token; "length" means that the answer was cut off."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]


@torch.inference_mode()
def features(vlm: Vlm, tokens: Tokens) -> Tensor:
    """Project tokens into the language model, image_newline behind each picture: [B, N + 1, D]."""
    projected = vlm.model.model.multi_modal_projector(tokens.x[:, tokens.num_prefix :])
    newline = vlm.model.model.image_newline.to(projected.dtype).expand(len(projected), 1, -1)
    return torch.cat((projected, newline), dim=1)


@torch.inference_mode()
def prefill(vlm: Vlm, input_ids: Tensor, features: Tensor) -> Prefill:
    """Run the prompt [1, T] with the features [n, M, D] at its placeholders, in order.

    Raises VlmError (prompt_too_long) if no room is left for an answer.
    """
    if input_ids.shape[1] >= vlm.max_tokens:
        message = (
            f"the prompt has {input_ids.shape[1]} tokens with its images; {vlm.id} takes {vlm.max_tokens - 1}"
        )
        raise VlmError("prompt_too_long", message)
    cache = new_cache(vlm)
    logits = next_logits(vlm, embed(vlm, input_ids, features), cache)
    return Prefill(cache, logits, input_ids.shape[1])


@torch.inference_mode()
def generate(
    vlm: Vlm,
    prefill: Prefill,
    params: GenerationParams | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Decode one answer; `should_stop` is asked after every token ("cancelled" if it says so).

    Uses up the prefill: its cache grows with the answer.
    """
    params = params or GenerationParams()
    if prefill.cache.get_seq_length() != prefill.prompt_tokens:
        raise ValueError("this prefill has been used: its cache already holds an answer")
    limit = min(params.max_new_tokens, vlm.max_tokens - prefill.prompt_tokens)
    finish_reason: Literal["stop", "length", "cancelled"] = "length"
    ids: list[int] = []
    for token in islice(_tokens(vlm, prefill, params), limit):
        if token in vlm.eos_token_ids:
            finish_reason = "stop"
            break
        ids.append(token)
        if should_stop is not None and should_stop():
            finish_reason = "cancelled"
            break
    return Generation(answer_text(vlm, ids), tuple(ids), finish_reason)


def _tokens(vlm: Vlm, prefill: Prefill, params: GenerationParams) -> Iterator[int]:
    generator = _generator(params.seed)
    logits = prefill.logits
    while True:
        token = _choose(logits[0], params, generator)
        yield token
        logits = next_logits(vlm, embed(vlm, torch.tensor([[token]], device=vlm.device)), prefill.cache)


def _generator(seed: int | None) -> torch.Generator:
    """Make this call's own source of chance, on the CPU so that a seed means the same on every device."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _choose(logits: Tensor, params: GenerationParams, generator: torch.Generator) -> int:
    if params.temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()).double().cpu() / params.temperature  # at most 0: never overflows
    ranked, order = scaled.softmax(dim=-1).sort(descending=True, stable=True)
    outside = ranked.cumsum(dim=-1) - ranked >= params.top_p  # the most likely token always stays
    drawn = torch.multinomial(ranked.masked_fill(outside, 0.0), 1, generator=generator)
    return int(order[drawn])
