"""Whether a language server holds the weights that the encoder was made for: known prompts, known answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.language.faults import Fault
from service.language.wire import Received
from vlm import GeneratedSequence, GenerationParams, TokenLogprob, Vlm, VlmError
from vlm.dtypes import short
from vlm.language import embed
from vlm.probe import COARSE, TOP, Probe, largest_difference, probe_prompts, read_probe, tolerance

log = logging.getLogger("tosa_vqa")

PARAMS = GenerationParams(max_new_tokens=1, top_logprobs=TOP)
Post = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Send a request for one whole answer, without a model; return the response. Raises Fault."""


class WeightsCheck:
    """Send the prompts of `vlm.probe` to servers, as embeddings, and compare the answers with known ones.

    folder: where known answers are, None for the checkpoint's own folder. Without known answers the same
    prompts are sent as tokens too: equal answers prove equal embeddings of tokens, and nothing more. Where
    embeddings are sent as pictures, known answers are needed, and first have to be given to tokens: features
    of another width would end the engine of a server.
    """

    @torch.inference_mode()
    def __init__(self, vlm: Vlm, folder: Path | None, encode: Callable[[Tensor], Any]) -> None:
        self._size, self._tolerance = vlm.text_config.vocab_size, tolerance(vlm.dtype)
        self._dtype = short(vlm.dtype)
        prompts = probe_prompts(vlm)
        self._ids = [prompt[0].tolist() for prompt in prompts]
        self._embeds = [encode(embed(vlm, prompt)[0].cpu()) for prompt in prompts]
        self._known = _known(vlm, folder)
        self._tokens_first = vlm.family.language_input == "pictures"

    async def __call__(self, post: Post) -> None:
        """Ask a server. Raises Fault (language_wrong_weights), and other Faults."""
        known = None if self._known is None else self._known.answers
        if known is None or self._tokens_first:
            by_tokens = [await self._ask(post, {"prompt": ids}) for ids in self._ids]
            if known is not None:
                self._compare(known, by_tokens)
            known = known or by_tokens
        self._compare(known, [await self._ask(post, {"prompt_embeds": embeds}) for embeds in self._embeds])

    def _compare(self, known: Sequence[TokenLogprob], got: Sequence[TokenLogprob]) -> None:
        difference = largest_difference(known, got)
        if not difference <= self._tolerance:
            detail = f"log-probabilities of known prompts differ by {difference:.3g}, not {self._tolerance}"
            if difference <= COARSE:
                detail += f"; equal weights in a coarser type would: start vLLM with --dtype {self._dtype}"
            raise Fault("language_wrong_weights", detail)

    async def _ask(self, post: Post, prompt: dict[str, Any]) -> TokenLogprob:
        more = {"max_tokens": 1, "temperature": 0, "logprobs": TOP, "return_tokens_as_token_ids": True}
        event = await post({**prompt, **more, "return_token_ids": True, "ignore_eos": True})
        row = GeneratedSequence(0, 0)
        (step,) = Received(row, PARAMS, 1, self._size, frozenset()).steps(event) or [None]
        if not isinstance(step, TokenLogprob):
            raise Fault("language_garbled", "an answer without its probability")
        return step


def _known(vlm: Vlm, folder: Path | None) -> Probe | None:
    """Read known answers. Raises VlmError for those of another checkpoint."""
    where = vlm.family.folder if folder is None else folder
    found = None if where is None else read_probe(where)
    if folder is not None and found is None:
        message = f"language_probe: {folder} holds no answers that tosa-vqa language-model wrote"
        raise VlmError("broken_checkpoint", message)
    if found is not None and found.revision != vlm.revision:
        message = f"the known answers are of revision {found.revision}, the model is {vlm.revision}"
        raise VlmError("broken_checkpoint", message)
    if found is None and vlm.family.language_input == "pictures":
        message = "language_probe: this model needs known answers, which tosa-vqa language-model writes"
        raise VlmError("broken_checkpoint", message)
    if found is None:
        log.warning("no known answers: only the embeddings of tokens of the language servers are checked")
    return found
