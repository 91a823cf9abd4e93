"""Whether a language server keeps answers inside a grammar of ours: a grammar that allows one text only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.language.faults import Fault
from service.language.probe import Post
from service.language.wire import Received, structured
from vlm import GeneratedSequence, GenerationParams, Vlm
from vlm.grammar import compile_schema
from vlm.language import embed
from vlm.probe import probe_prompts

KEPT = {
    "type": "object",
    "properties": {"kept": {"const": [True, 1]}},
    "required": ["kept"],
    "additionalProperties": False,
}
MAX_TOKENS = 64
CANNOT = ("language_refused", "language_failed", "language_garbled", "language_incomplete")
"""Faults by which a server shows that it does not know our grammars; others say nothing of them."""


class GrammarCheck:
    """Ask servers for an answer to a known prompt that has to be the one text of a grammar.

    For models whose tokens can spell every text.
    """

    @torch.inference_mode()
    def __init__(self, vlm: Vlm, encode: Callable[[Tensor], Any]) -> None:
        self._size, self._eos = vlm.text_config.vocab_size, vlm.eos_token_ids
        self._embeds = encode(embed(vlm, probe_prompts(vlm)[0])[0].cpu())
        self._params = GenerationParams(MAX_TOKENS, grammar=compile_schema(vlm, KEPT))

    async def __call__(self, post: Post) -> str | None:
        """Return why a server does not keep our grammars, None if it does. Raises Fault."""
        try:
            return await self._ask(post)
        except Fault as fault:
            if fault.code not in CANNOT:
                raise
            return str(fault)

    async def _ask(self, post: Post) -> str | None:
        more = {"max_tokens": MAX_TOKENS, "temperature": 0, "return_token_ids": True}
        event = await post({"prompt_embeds": self._embeds, **more, **structured(self._params)})
        answer = Received(GeneratedSequence(0, 0), self._params, MAX_TOKENS, self._size, self._eos)
        for step in answer.steps(event):
            if answer.row.finish_reason is None:
                answer.append(step)
        return None if answer.row.finish_reason == "stop" else "the answer had no end"
