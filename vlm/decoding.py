"""Several answers decoded together, one token of each per step; each the same as if it were decoded alone.

Prompts of different lengths are padded on the left. Inputs and outputs are token ids and features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from vlm.families.layout import Visual
from vlm.language import embed, new_cache, next_logits, select_rows
from vlm.model import Vlm, VlmError
from vlm.sampling import Ended, GenerationParams, Sampler, TokenLogprob, choose

FinishReason = Literal["stop", "length", "cancelled", "non_finite", "unspellable"]


@dataclass
class GeneratedSequence:
    """One answer of a `Decoding`, so far.

    `index`: its place among the answers. `token_ids`: without the stop token. `finish_reason`: None while it
    runs; "length": it reached its own limit or the model's; "cancelled": dropped; "non_finite": the model
    gave NaN or infinity instead of the next token; "unspellable": no token fits its grammar. `guided_text`:
    the text so far of an answer with a grammar. `logprobs`: of every token, if they were asked for.
    """

    index: int
    prompt_tokens: int
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    guided_text: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Decoding:
    """Read several prompts and decode their answers together, each with its own parameters and limits.

    prompts: ids [1, T] each, T may differ. features: of each prompt's images and videos, for its placeholders
    in order; there may be none. Features [n, M, D] alone serve models whose positions just count. prompt_of:
    the prompt of every answer, one each if not given; a prompt is read once for all its answers. The
    constructor runs the prompts; `step` the rest. Rows that end leave the batch and its cache at once. For
    one thread at a time; unusable after the model has raised an exception. One prompt alone, or prompts of
    one length, run without a padding mask.
    In float32 the tokens are those of each prompt alone; coarser types may round near-equal ones either way.
    Raises VlmError (prompt_too_long), before any work of the model, if no room is left for an answer; its
    `rows` are the prompts meant. Raises ValueError where placeholders and features disagree.
    """

    @torch.inference_mode()
    def __init__(
        self,
        vlm: Vlm,
        prompts: Sequence[Tensor],
        features: Sequence[Tensor | Sequence[Visual]],
        params: Sequence[GenerationParams],
        prompt_of: Sequence[int] | None = None,
    ) -> None:
        prompt_of = range(len(prompts)) if prompt_of is None else prompt_of
        if not 0 < len(prompts) == len(features) or len(prompt_of) != len(params):
            raise ValueError("give at least one prompt, and the features and parameters of each")
        require_room(vlm, prompts)
        self.rows = tuple(GeneratedSequence(i, prompts[of].shape[1]) for i, of in enumerate(prompt_of))
        self._vlm = vlm
        self._active = self.rows
        self._samplers = [Sampler.start(own) for own in params]
        embeds = [embed(vlm, prompt, own) for prompt, own in zip(prompts, features, strict=True)]
        batch, self._attended = left_pad(embeds)  # attended [B, tokens in the cache], None without padding
        self._cache = new_cache(vlm)
        visuals = [() if isinstance(own, Tensor) else tuple(own) for own in features]
        positions = _positions(vlm, prompts, visuals)
        # Of every row, the next position where they do not just count: [B].
        self._next = None if positions is None else positions[1]
        inputs = vlm.family.prompt_inputs(_pad_ids(prompts), [each for own in visuals for each in own])
        self._logits = self._forward(batch, None if positions is None else positions[0], inputs)
        if list(prompt_of) != list(range(len(prompts))):
            self._select(prompt_of)

    @property
    def active(self) -> tuple[int, ...]:
        """Indices of the rows that still run, ascending."""
        return tuple(row.index for row in self._active)

    @torch.inference_mode()
    def step(self) -> list[GeneratedSequence]:
        """Choose one more token for every active row; return these rows, those that end now among them.

        Runs the language model, but for the first call, which chooses behind the prompts.
        """
        if not self._active:
            return []
        logits = self._next_logits() if self._logits is None else self._logits
        self._logits = None
        stepped = list(self._active)
        samplers = [self._samplers[i] for i in self.active]
        for row, token, sampler, own in zip(stepped, choose(logits, samplers), samplers, logits, strict=True):
            self._append(row, token, sampler)
            if sampler.params.top_logprobs is not None and len(row.logprobs) < len(row.token_ids):
                row.logprobs.append(sampler.logprob(own, row.token_ids[-1]))
        self._evict_finished()
        return stepped

    @torch.inference_mode()
    def cancel(self, rows: Collection[int]) -> None:
        """End these rows as "cancelled" without effect on the others; ended rows stay unchanged."""
        for row in self._active:
            if row.index in rows:
                row.finish_reason = "cancelled"
        self._evict_finished()

    def _next_logits(self) -> Tensor:
        last = torch.tensor([row.token_ids[-1:] for row in self._active], device=self._vlm.device)
        if self._attended is not None:
            self._attended = pad(self._attended, (0, 1), value=1)
        return self._forward(embed(self._vlm, last))

    def _forward(
        self, embeds: Tensor, positions: Tensor | None = None, inputs: dict[str, Any] | None = None
    ) -> Tensor:
        """Run embeds [B, T, D] after the cache; return the logits [B, vocabulary] that follow.

        positions, inputs: of prompts, where the family has some.
        """
        inputs = inputs or {}
        if positions is None and self._next is not None:
            positions = self._next[None, :, None].expand(3, -1, -1)
            self._next = self._next + 1
        if self._attended is None:
            ahead = () if positions is None else (None, positions)
            return next_logits(self._vlm, embeds, self._cache, *ahead, **inputs)
        if positions is None:
            positions = (self._attended.cumsum(dim=1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        return next_logits(self._vlm, embeds, self._cache, self._attended, positions, **inputs)

    def _append(self, row: GeneratedSequence, token: int | Ended, sampler: Sampler) -> None:
        room = self._vlm.max_tokens - row.prompt_tokens
        if isinstance(token, str):
            row.finish_reason = token
        elif token in self._vlm.eos_token_ids:
            row.finish_reason = "stop"
        else:
            row.token_ids.append(token)
            if sampler.guide is not None and sampler.guide.is_complete:
                row.finish_reason = "stop"
            elif len(row.token_ids) == min(sampler.params.max_new_tokens, room):
                row.finish_reason = "length"
        if sampler.guide is not None:
            row.guided_text = sampler.guide.text

    def _evict_finished(self) -> None:
        """Remove the rows that have ended from everything that has one entry per active row."""
        stay = [place for place, row in enumerate(self._active) if row.finish_reason is None]
        if len(stay) == len(self._active):
            return
        self._active = tuple(self._active[place] for place in stay)
        if not stay:  # free the memory now: nothing is read again
            self._cache, self._attended, self._logits = new_cache(self._vlm), None, None
            return
        self._select(stay)

    def _select(self, rows: Sequence[int]) -> None:
        """Keep these rows of everything that has one entry per active row, in this order; they may repeat."""
        at = torch.tensor(rows, device=self._vlm.device)
        select_rows(self._cache, at)
        self._attended = None if self._attended is None else self._attended[at]
        self._next = None if self._next is None else self._next[at]
        self._logits = None if self._logits is None else self._logits[at]


def require_room(vlm: Vlm, prompts: Sequence[Tensor]) -> None:
    """Raise VlmError (prompt_too_long, with `rows`) if a prompt [1, T] leaves no room for an answer."""
    lengths = [prompt.shape[1] for prompt in prompts]
    too_long = tuple(i for i, length in enumerate(lengths) if length >= vlm.max_tokens)
    if too_long:
        longest = max(lengths)
        most = vlm.max_tokens - 1
        message = (
            f"the prompt has {longest} tokens with its images and the model takes {most}: shorten the "
            "question or keep fewer visual tokens."
        )
        raise VlmError("prompt_too_long", message, rows=too_long, limit=most)


def left_pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return rows [1, t, D] behind zeros as [B, T, D]; and 1 where they are real, None if everywhere."""
    width = max(row.shape[1] for row in rows)
    batch = torch.cat([pad(row, (0, 0, width - row.shape[1], 0)) for row in rows])
    if all(row.shape[1] == width for row in rows):
        return batch, None
    starts = torch.tensor([width - row.shape[1] for row in rows], device=batch.device)
    return batch, (torch.arange(width, device=batch.device) >= starts[:, None]).long()


def _pad_ids(prompts: Sequence[Tensor]) -> Tensor:
    """Return ids [B, T], -1 in front of shorter prompts."""
    width = max(prompt.shape[1] for prompt in prompts)
    return torch.cat([pad(prompt, (width - prompt.shape[1], 0), value=-1) for prompt in prompts])


def _positions(
    vlm: Vlm, prompts: Sequence[Tensor], visuals: Sequence[Sequence[Visual]]
) -> tuple[Tensor, Tensor] | None:
    """Return positions [3, B, T] and the next one of each prompt [B]; None where they just count."""
    found = [
        vlm.family.positions(prompt[0].tolist(), own, vlm.device)
        for prompt, own in zip(prompts, visuals, strict=True)
        if vlm.family.has_places
    ]
    if not found:
        return None
    width = max(prompt.shape[1] for prompt in prompts)
    rows = [pad(own, (width - own.shape[1], 0)) for own, _ in found]
    return torch.stack(rows, dim=1), torch.tensor([after for _, after in found], device=vlm.device)


def unspellable() -> VlmError:
    """Return the error for an answer that no token of the model can continue as its grammar asks."""
    message = "the schema asks for what this model has no words for, or is too complex to follow."
    return VlmError("invalid_schema", message, field="schema")
