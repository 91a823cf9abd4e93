"""Prompts and answers as they travel: vLLM's completions API, prompt embeddings and server-sent events."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from service.language.faults import Fault, of_status
from vlm import GeneratedSequence, GenerationParams, TokenLogprob
from vlm.grammar import TokenGrammar
from vlm.guide import Ended, TokenGuide

MAX_LINE_BYTES = 1 << 20
TOKEN = "token_id:"
NEUTRAL = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sent with every prompt: a server otherwise takes what the checkpoint's generation_config.json says."""


def prompt_part(embeds: Tensor) -> bytes:
    """Write the beginning of a request: embeddings [T, D] on the CPU, as torch saves them, in base64."""
    return b'{"prompt_embeds":"' + base64.b64encode(saved(embeds)) + b'",'


def saved(embeds: Tensor) -> bytes:
    """Return a tensor as torch saves it; only its own numbers, not those it is a view of."""
    if embeds.untyped_storage().nbytes() != embeds.nbytes or not embeds.is_contiguous():
        embeds = embeds.clone(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(embeds, buffer)
    return buffer.getvalue()


def request_fields(
    model: str,
    params: GenerationParams,
    most: int,
    eos_token_ids: Sequence[int],
    salt: str | None = None,
) -> dict[str, Any]:
    """Return a request for one answer of at most `most` tokens, all but its prompt."""
    fields: dict[str, Any] = {
        "model": model,
        "max_tokens": most,
        "temperature": params.temperature,
        "top_p": params.top_p if params.temperature else 1.0,
        **NEUTRAL,
        "stop_token_ids": list(eos_token_ids),
        "ignore_eos": True,  # of the server's tokenizer: those above end an answer
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if params.temperature and params.seed is not None:
        fields["seed"] = params.seed
    if params.top_logprobs is not None:
        fields |= {"logprobs": params.top_logprobs, "return_tokens_as_token_ids": True}
    fields |= structured(params)
    if salt is not None:
        fields["cache_salt"] = salt
    return fields


def structured(params: GenerationParams) -> dict[str, Any]:
    """Return the fields that keep an answer inside its grammar, none without one."""
    grammar = params.grammar
    return {"structured_outputs": {"grammar": grammar.text}} if isinstance(grammar, TokenGrammar) else {}


async def events(
    pieces: AsyncIterator[bytes], said: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the data of server-sent events up to [DONE]. Raises Fault for what cannot be read.

    said: puts an event in the words of the completions API.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                async for _ in pieces:  # to its end, or the connection cannot be used again
                    pass
                return
            yield said(_event(data))
        if len(rest) > MAX_LINE_BYTES:
            raise Fault("language_garbled", "an event of more than a mebibyte")


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise Fault("language_garbled", "an event that is no JSON") from None
    if not isinstance(event, dict):
        raise Fault("language_garbled", "an event that is no object")
    if (error := event.get("error")) is not None:
        status = error.get("code") if isinstance(error, dict) else None
        raise of_status(status if isinstance(status, int) and status >= 400 else 500, data, {})
    return event


@dataclass
class Received:
    """Follow one answer as its events arrive, a row at a time as a `Decoding` gives it.

    most: tokens that were asked for. size: rows of the vocabulary. An answer with a grammar is followed in
    it, so that none is passed on that does not fit, whatever the server does.
    """

    row: GeneratedSequence
    params: GenerationParams
    most: int
    size: int
    eos_token_ids: frozenset[int]
    waited_s: float | None = None
    cached_tokens: int | None = None
    _reason: str | None = field(default=None, repr=False)
    _guide: TokenGuide | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.params.grammar, TokenGrammar):
            self._guide = self.params.grammar.start()

    def steps(self, event: dict[str, Any]) -> list[TokenLogprob | int]:
        """Read an event; return its tokens, each with its probability if that was asked for. Raises Fault."""
        try:
            self._read_usage(event)
            choices = event.get("choices") or ()
            if not choices:
                return []
            choice = choices[0]
            self._reason = choice.get("finish_reason") or self._reason
            tokens = [self._token(token) for token in choice.get("token_ids") or ()]
            if self.params.top_logprobs is None:
                return list(tokens)
            return list(self._logprobs(tokens, choice.get("logprobs")))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            raise Fault("language_garbled", "an event of another form") from None

    def append(self, step: TokenLogprob | int) -> None:
        """Append a token to the row, or end the row with it. Raises Fault for one that does not fit."""
        token = step if isinstance(step, int) else step.token_id
        end = self._end_by(token)
        if end is not None:
            self.row.finish_reason = end
            return
        self.row.token_ids.append(token)
        if not isinstance(step, int):
            self.row.logprobs.append(step)
        if self._guide is not None and self._guide.is_complete:
            self.row.finish_reason = "stop"
        elif len(self.row.token_ids) == self.most:
            self.row.finish_reason = "length"

    def end(self) -> bool:
        """End a row that its tokens have not ended, by the server's word; return whether it gave one.

        Raises Fault where the server says that it did not finish.
        """
        if self.row.finish_reason is not None:
            return True
        if self._reason == "stop" and self._guide is not None and not self._guide.can_end:
            raise Fault("language_incomplete", "it stopped in the middle of a schema")
        if self._reason in ("stop", "length"):
            self.row.finish_reason = self._reason
            return True
        if self._reason is not None:
            raise Fault("language_incomplete", f"finish_reason {self._reason[:32]}")
        return False

    def _end_by(self, token: int) -> Ended | None:
        """Return why the row ends in place of a token, None if it does not. Raises Fault."""
        if self._guide is None:
            return "stop" if token in self.eos_token_ids else None
        taken = self._guide.follow(token)
        self.row.guided_text = self._guide.text
        if taken is None:
            raise Fault("language_garbled", "a token that does not fit the schema")
        return None if isinstance(taken, int) else taken

    def _token(self, token: object) -> int:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.size:
            raise ValueError
        return token

    def _logprobs(self, tokens: list[int], held: Any) -> list[TokenLogprob]:
        if not tokens:
            return []
        rows = zip(tokens, held["token_logprobs"], held["top_logprobs"], strict=True)
        return [TokenLogprob(token, _finite(value), self._top(top)) for token, value, top in rows]

    def _top(self, top: dict[str, float]) -> tuple[tuple[int, float], ...]:
        """Return the likeliest tokens; the chosen one is among those sent, also where it is none of them."""
        pairs = [(self._token(int(name.removeprefix(TOKEN))), _finite(value)) for name, value in top.items()]
        ranked = sorted(pairs, key=lambda pair: -pair[1])
        return tuple(ranked[: self.params.top_logprobs or 0])

    def _read_usage(self, event: dict[str, Any]) -> None:
        usage, metrics = event.get("usage"), event.get("metrics")
        if usage is not None:
            details = usage.get("prompt_tokens_details") or {}
            self.cached_tokens = details.get("cached_tokens", self.cached_tokens)
        if metrics is not None and isinstance(queue_ms := metrics.get("queue_time_ms"), int | float):
            self.waited_s = queue_ms / 1000


def _finite(value: float | None) -> float:
    """Return a log-probability. Raises Fault for that of a model with NaN, which JSON writes as null."""
    if value is None or not math.isfinite(value):
        raise Fault("numerical_error", "a probability that is not finite")
    return float(value)
