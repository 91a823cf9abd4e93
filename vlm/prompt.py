"""A question or a conversation to token ids, one placeholder per visual token; and an answer's ids to text.

The number of visual tokens follows from the plan, before the tower has run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vlm.model import Vlm, VlmError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: texts, and None in the place of the next image."""

    role: Role
    content: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):  # it becomes part of the prompt verbatim
            raise ValueError(f"the role of a turn is one of {get_args(Role)}, not {self.role!r}")


def prompt_ids(vlm: Vlm, question: str, tokens_per_image: Sequence[int]) -> Tensor:
    """Return the prompt [1, T] of one question, its images in front: `chat_ids` of one user turn.

    Special tokens spelled out in the question stay text. Raises VlmError (unsupported_turns).
    """
    turn = Turn("user", (*[None] * len(tokens_per_image), question))
    return chat_ids(vlm, [turn], tokens_per_image)


def chat_ids(vlm: Vlm, turns: Sequence[Turn], tokens_per_image: Sequence[int]) -> Tensor:
    """Return the prompt [1, T] of a conversation, up to where the assistant speaks next.

    tokens_per_image: merged tokens of every image, in the order of the turns; each gets one placeholder
    more, for image_newline, as transformers packs images of one view. The template decides where images are
    placed within a turn: that of llava-onevision puts them before the texts of their turn. Special tokens
    spelled out in a text stay text: they can neither add placeholders nor end a turn.
    Raises VlmError (unsupported_turns) if the chat template refuses these turns or loses a part of them.
    Raises ValueError without turns, or with another number of images than `tokens_per_image`.
    """
    texts = [part for turn in turns for part in turn.content if part is not None]
    images = sum(part is None for turn in turns for part in turn.content)
    if not turns or images != len(tokens_per_image):
        raise ValueError(f"{len(turns)} turns with {images} images, for {len(tokens_per_image)} images")
    # The same turns with marks for texts show what the template does, independently of the texts.
    marks = [str(10**15 + i) for i in range(len(texts))]
    marked = _render(vlm, turns, marks)
    if any(mark not in marked for mark in marks):
        raise _unsupported("leaves out a text of these turns")
    ids, marked_ids = _tokenize(vlm, [_render(vlm, turns, defuse(vlm, texts)), marked])
    if ids.count(vlm.image_token_id) != images:
        raise _unsupported("does not place each image of these turns once")
    if special_ids(vlm, ids) != special_ids(vlm, marked_ids):
        raise _unsupported("makes special tokens out of the texts of these turns")
    return torch.tensor([list(_expand(ids, vlm.image_token_id, tokens_per_image))], device=vlm.device)


def answer_text(vlm: Vlm, token_ids: Sequence[int]) -> str:
    """Decode an answer, without special tokens and surrounding space."""
    return decoded(vlm, token_ids).strip()


def decoded(vlm: Vlm, token_ids: Sequence[int]) -> str:
    """Decode tokens without clean-up, so that further tokens only add text; special ones are skipped."""
    text = vlm.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _render(vlm: Vlm, turns: Sequence[Turn], texts: Sequence[str]) -> str:
    """Render the turns with the checkpoint's template, with `texts` in place of their own."""
    rest = iter(texts)
    contents = [[None if part is None else next(rest) for part in turn.content] for turn in turns]
    if vlm.chat_template is None:
        return "".join(f"{placeholder(vlm) if p is None else p}\n" for parts in contents for p in parts)
    messages: list[Any] = [
        {
            "role": turn.role,
            "content": [{"type": "image"} if p is None else {"type": "text", "text": p} for p in parts],
        }
        for turn, parts in zip(turns, contents, strict=True)
    ]
    try:
        rendered = vlm.tokenizer.apply_chat_template(
            messages, chat_template=vlm.chat_template, add_generation_prompt=True, tokenize=False
        )
    except Exception as error:  # a template is a program of the checkpoint: it may raise anything
        raise _unsupported("refuses these turns") from error
    return str(rendered)


def _tokenize(vlm: Vlm, texts: list[str]) -> list[list[int]]:
    return vlm.tokenizer(texts, add_special_tokens=False)["input_ids"]


def _unsupported(what: str) -> VlmError:
    return VlmError("unsupported_turns", f"the chat template of the model {what}.")


def _expand(ids: Sequence[int], image_token_id: int, tokens_per_image: Sequence[int]) -> Iterator[int]:
    counts = iter(tokens_per_image)
    for token in ids:
        yield from [token] * (next(counts) + 1 if token == image_token_id else 1)


def placeholder(vlm: Vlm) -> str:
    """Return the image placeholder as text."""
    return str(vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id))


def defuse(vlm: Vlm, texts: Sequence[str]) -> list[str]:
    """Break every special token spelled out in a text by a space, also where it spans several texts.

    Not split_special_tokens: the tokenizer keeps that mode as state, which threads would share.
    """
    longest_first = sorted(_spellings(vlm), key=len, reverse=True)
    spelled = re.compile("|".join(map(re.escape, longest_first)))
    defused: list[str] = []
    before = ""  # the end of the template's own text, which may continue in the next one
    for text in texts:
        broken = spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        if spelled.search(before + broken):
            broken = f" {broken}"
        defused.append(broken)
        before = (before + broken)[-len(longest_first[0]) :]
    return defused


def special_ids(vlm: Vlm, ids: Sequence[int]) -> list[int]:
    """Keep the special tokens among ids, in order; not the one for unknown words, which any text may give."""
    special = {id_ for id_, token in vlm.tokenizer.added_tokens_decoder.items() if token.special}
    special.add(vlm.image_token_id)
    return [id_ for id_ in ids if id_ in special and id_ != vlm.tokenizer.unk_token_id]


def _spellings(vlm: Vlm) -> set[str]:
    special = {token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special}
    return special | {placeholder(vlm)}
