"""Choose the next token of every row from logits: greedy, or sampled with a temperature, top-p and a seed.

The choice of a row never depends on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vlm.model import VlmError

if TYPE_CHECKING:
    from vlm.grammar import Grammar
    from vlm.guide import Guide

MAX_TOP_LOGPROBS = 20
Ended = Literal["stop", "unspellable", "non_finite"]
"""Why an answer ends in place of a token: it fits its grammar, cannot go on in it, or is not finite."""


@dataclass(frozen=True)
class GenerationParams:
    """How an answer is decoded. temperature 0 is greedy; `top_p` and `seed` matter only above 0.

    grammar: what the answer has to match. top_logprobs: alternatives to report beside the probability of
    every token; None reports nothing.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    grammar: Grammar | None = None
    top_logprobs: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise _invalid("max_new_tokens", "at least 1", self.max_new_tokens, 1)
        if not self.temperature >= 0:
            raise _invalid("temperature", "at least 0", self.temperature, 0)
        if not 0 < self.top_p <= 1:
            raise _invalid("top_p", "above 0 and at most 1", self.top_p, 0 if self.top_p <= 0 else 1)
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            span = f"at least 0 and at most {MAX_TOP_LOGPROBS}"
            limit = 0 if self.top_logprobs < 0 else MAX_TOP_LOGPROBS
            raise _invalid("top_logprobs", span, self.top_logprobs, limit)


def _invalid(field: str, span: str, value: float, limit: float) -> VlmError:
    message = f"{field} must be {span}, got {value}."
    return VlmError("invalid_generation", message, field=field, limit=limit)


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a chosen token, and the likeliest tokens there, most likely first.

    Of the model's own distribution: before temperature, top-p and grammar.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Chooses the tokens of one answer, with its own parameters, random generator and guide."""

    params: GenerationParams
    generator: torch.Generator
    guide: Guide | None = None

    @classmethod
    def start(cls, params: GenerationParams) -> Sampler:
        """Seed the generator, on the CPU so that a seed gives the same answer on every device."""
        generator = torch.Generator()
        if params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(params.seed)
        return cls(params, generator, None if params.grammar is None else params.grammar.start())

    def next_token(self, logits: Tensor) -> int | Ended:
        """Choose a token from finite logits [vocabulary], or say that the answer has ended."""
        if self.guide is None:
            return self._pick(logits)
        return self.guide.next_token(
            lambda allowed: self._pick(logits.masked_fill(~allowed.to(logits.device), float("-inf")))
        )

    def draw(self, logits: Tensor) -> int:
        """Draw a token from logits [vocabulary] below infinity; for temperatures above 0."""
        # at most 0: never overflows
        scaled = (logits - logits.max()).double().cpu() / self.params.temperature
        ranked, order = scaled.softmax(dim=-1).sort(descending=True, stable=True)
        outside = ranked.cumsum(dim=-1) - ranked >= self.params.top_p  # the most likely token always stays
        # Drawn in the order of ids: the ranks of tokens that are almost equally likely depend on rounding.
        likely = torch.empty_like(ranked).scatter_(-1, order, ranked.masked_fill(outside, 0.0))
        return int(torch.multinomial(likely, 1, generator=self.generator))

    def logprob(self, logits: Tensor, token: int) -> TokenLogprob:
        """Report a token of finite logits [vocabulary], with the `top_logprobs` likeliest ones."""
        logprobs = logits.double().log_softmax(dim=-1)
        values, tokens = logprobs.topk(self.params.top_logprobs or 0)
        top = zip(tokens.tolist(), values.tolist(), strict=True)
        return TokenLogprob(token, float(logprobs[token]), tuple(top))

    def _pick(self, logits: Tensor) -> int:
        return int(logits.argmax()) if self.params.temperature == 0 else self.draw(logits)


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | Ended]:
    """Choose the next token of each row of logits [B, vocabulary], or say why a row ends without one."""
    finite = logits.isfinite().all(dim=-1)
    best = torch.where(finite, logits.argmax(dim=-1), -1).tolist()  # one copy from the device for all rows
    return [
        "non_finite" if token < 0 else token if _is_plain(sampler) else sampler.next_token(row)
        for token, sampler, row in zip(best, samplers, logits, strict=True)
    ]


def _is_plain(sampler: Sampler) -> bool:
    return sampler.params.temperature == 0 and sampler.guide is None
