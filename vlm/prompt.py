"""Question to token ids, one placeholder per visual token; and an answer's token ids back to text.

Knows the merged counts as numbers only: they follow from the plan, before the tower has run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vlm.model import Vlm, VlmError


def prompt_ids(vlm: Vlm, question: str, tokens_per_image: Sequence[int]) -> Tensor:
    """Return the prompt [1, T] with `count + 1` placeholders per picture: merged tokens and image_newline.

    The pictures come first, in order, as transformers packs pictures of one view. Special tokens spelled out
    in the question stay text: they can neither add placeholders nor close the turn.
    """
    text = _render(vlm, _defuse(vlm, question), len(tokens_per_image))
    ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids.count(vlm.image_token_id) != len(tokens_per_image):
        raise VlmError("broken_checkpoint", f"the chat template of {vlm.id} does not place each image once")
    return torch.tensor([list(_expand(ids, vlm.image_token_id, tokens_per_image))], device=vlm.device)


def answer_text(vlm: Vlm, token_ids: Sequence[int]) -> str:
    """Decode an answer, without special tokens and surrounding space."""
    return str(vlm.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


def _defuse(vlm: Vlm, text: str) -> str:
    """Break every special token spelled out in `text` by a space after its first character.

    Not split_special_tokens: the tokenizer keeps that mode as state, which threads would share.
    """
    special = {token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special}
    longest_first = sorted(special | {_placeholder(vlm)}, key=len, reverse=True)
    spelled = re.compile("|".join(map(re.escape, longest_first)))
    return spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _placeholder(vlm: Vlm) -> str:
    return str(vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id))


def _render(vlm: Vlm, question: str, num_images: int) -> str:
    if vlm.chat_template is None:
        return f"{_placeholder(vlm)}\n" * num_images + f"{question}\n"
    content = [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
    turns: list[Any] = [{"role": "user", "content": content}]
    rendered = vlm.tokenizer.apply_chat_template(
        turns, chat_template=vlm.chat_template, add_generation_prompt=True, tokenize=False
    )
    return str(rendered)


def _expand(ids: Sequence[int], image_token_id: int, tokens_per_image: Sequence[int]) -> Iterator[int]:
    counts = iter(tokens_per_image)
    for token in ids:
        yield from [token] * (next(counts) + 1 if token == image_token_id else 1)
