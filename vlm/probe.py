"""Known answers of a language model, by which an engine elsewhere is seen to hold the same weights.

A few fixed prompts of text tokens are read where the language model was loaded, and again by the engine.
Other weights, or another table of embeddings, make other tokens likely to follow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm.language import embed, new_cache, next_logits
from vlm.model import Vlm, VlmError
from vlm.sampling import GenerationParams, Sampler, TokenLogprob

PROBE = "tosa_probe.json"
"""The file with known answers, in the folder of a checkpoint or of its language model."""
PROMPTS, PROMPT_TOKENS, TOP = 8, 12, 5
STEP = 7919  # a prime, so that the tokens of the prompts are spread over any vocabulary
TOLERANCE = {torch.float32: 0.01}
COARSE = 0.5
"""Largest difference of two log-probabilities in coarser types, which round everywhere on the way."""


@dataclass(frozen=True)
class Probe:
    """The likeliest token behind every prompt of `probe_prompts`. revision: of the checkpoint."""

    revision: str
    answers: tuple[TokenLogprob, ...]


def probe_prompts(vlm: Vlm) -> list[Tensor]:
    """Return PROMPTS prompts of token ids [1, T]: no special tokens among them, and none for pictures."""
    special = {*vlm.tokenizer.all_special_ids, *vlm.family.visual_token_ids, *vlm.eos_token_ids}
    words = [id_ for id_ in range(len(vlm.tokenizer)) if id_ not in special]
    numbers = range(PROMPTS * PROMPT_TOKENS)
    ids = torch.tensor([words[number * STEP % len(words)] for number in numbers], device=vlm.device)
    return list(ids.view(PROMPTS, 1, PROMPT_TOKENS))


@torch.inference_mode()
def probe(vlm: Vlm) -> Probe:
    """Answer the prompts with the language model that was loaded. Raises VlmError (no_language_model)."""
    reader = Sampler.start(GenerationParams(top_logprobs=TOP))
    rows = [next_logits(vlm, embed(vlm, prompt), new_cache(vlm))[0] for prompt in probe_prompts(vlm)]
    return Probe(vlm.revision, tuple(reader.logprob(row, int(row.argmax())) for row in rows))


def write_probe(known: Probe, folder: Path) -> Path:
    """Write known answers beside a language model."""
    path = folder / PROBE
    path.write_text(json.dumps(asdict(known), indent=1) + "\n", encoding="utf-8")
    return path


def read_probe(folder: Path) -> Probe | None:
    """Read the known answers of a folder, None if it has none. Raises VlmError (broken_checkpoint)."""
    path = folder / PROBE
    if not path.is_file():
        return None
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        return Probe(str(raw["revision"]), tuple(map(_token, raw["answers"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} is not a file that tosa-vqa language-model writes ({type(error).__name__})"
        raise VlmError("broken_checkpoint", message) from error


def largest_difference(expected: Sequence[TokenLogprob], got: Sequence[TokenLogprob]) -> float:
    """Return by how much two sets of answers differ, as log-probabilities; infinity for other tokens.

    Where one chose another token, its own choice is looked up among the likeliest of the other.
    """
    if len(expected) != len(got):
        return float("inf")
    return max((_difference(*pair) for pair in zip(expected, got, strict=True)), default=0.0)


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest difference that equal weights have where one side computes in this type."""
    return TOLERANCE.get(dtype, COARSE)


def _difference(ours: TokenLogprob, theirs: TokenLogprob) -> float:
    known = {**dict(theirs.top), theirs.token_id: theirs.logprob}
    return abs(ours.logprob - known[ours.token_id]) if ours.token_id in known else float("inf")


def _token(raw: Any) -> TokenLogprob:
    top = tuple((int(token), float(logprob)) for token, logprob in raw["top"])
    return TokenLogprob(int(raw["token_id"]), float(raw["logprob"]), top)
