"""Choose the next token of every row from logits: greedy, or sampled with a temperature, top-p and a seed.

The choice of a row never depends on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.model import VlmError


@dataclass(frozen=True)
class GenerationParams:
    """How an answer is decoded. temperature 0 is greedy; `top_p` and `seed` matter only above 0."""

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise _invalid("max_new_tokens", "at least 1", self.max_new_tokens, 1)
        if not self.temperature >= 0:
            raise _invalid("temperature", "at least 0", self.temperature, 0)
        if not 0 < self.top_p <= 1:
            raise _invalid("top_p", "above 0 and at most 1", self.top_p, 0 if self.top_p <= 0 else 1)


def _invalid(field: str, span: str, value: float, limit: float) -> VlmError:
    message = f"{field} must be {span}, got {value}."
    return VlmError("invalid_generation", message, field=field, limit=limit)


@dataclass(frozen=True, eq=False)
class Sampler:
    """Chooses the tokens of one answer, with its own parameters and random generator."""

    params: GenerationParams
    generator: torch.Generator

    @classmethod
    def start(cls, params: GenerationParams) -> Sampler:
        """Seed the generator, on the CPU so that a seed gives the same answer on every device."""
        generator = torch.Generator()
        if params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(params.seed)
        return cls(params, generator)

    def draw(self, logits: Tensor) -> int:
        """Draw a token from finite logits [vocabulary]; for temperatures above 0."""
        # at most 0: never overflows
        scaled = (logits - logits.max()).double().cpu() / self.params.temperature
        ranked, order = scaled.softmax(dim=-1).sort(descending=True, stable=True)
        outside = ranked.cumsum(dim=-1) - ranked >= self.params.top_p  # the most likely token always stays
        drawn = torch.multinomial(ranked.masked_fill(outside, 0.0), 1, generator=self.generator)
        return int(order[drawn])


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """Choose the next token of each row of logits [B, vocabulary]; None for a row that is not finite."""
    finite = logits.isfinite().all(dim=-1)
    best = torch.where(finite, logits.argmax(dim=-1), -1).tolist()  # one copy from the device for all rows
    return [
        None if token < 0 else token if sampler.params.temperature == 0 else sampler.draw(row)
        for token, sampler, row in zip(best, samplers, logits, strict=True)
    ]
