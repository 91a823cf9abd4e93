"""A question or a conversation to token ids, one placeholder per visual token; and an answer's ids to text.

The number of visual tokens follows from the plan, before the tower has run. What stands around them (tags of
rows and columns, newlines, begin and end of an image) is spelled by the family of the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vlm.families.layout import Spelled
from vlm.model import Vlm, VlmError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: texts, and None in the place of the next image or video."""

    role: Role
    content: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):  # it becomes part of the prompt verbatim
            raise ValueError(f"the role of a turn is one of {get_args(Role)}, not {self.role!r}")


def prompt_ids(vlm: Vlm, question: str, visuals: Sequence[int | Spelled]) -> Tensor:
    """Return the prompt [1, T] of one question, its images in front: `chat_ids` of one user turn.

    Special tokens spelled out in the question stay text. Raises VlmError (unsupported_turns).
    """
    turn = Turn("user", (*[None] * len(visuals), question))
    return chat_ids(vlm, [turn], visuals)


def chat_ids(vlm: Vlm, turns: Sequence[Turn], visuals: Sequence[int | Spelled]) -> Tensor:
    """Return the prompt [1, T] of a conversation, up to where the assistant speaks next.

    visuals: what every image or video becomes (`vlm.visuals.spell`), in the order of the turns; or, of single
    views of LLaVA-OneVision, the number of merged tokens, which get one placeholder more for image_newline.
    The template decides where images are placed within a turn: that of llava-onevision puts them before the
    texts of their turn. Special tokens spelled out in a text stay text: they can neither add placeholders nor
    end a turn.
    Raises VlmError (unsupported_turns) if the chat template refuses these turns or loses a part of them.
    Raises ValueError without turns, or with another number of images than `visuals`.
    """
    texts = [part for turn in turns for part in turn.content if part is not None]
    images = sum(part is None for turn in turns for part in turn.content)
    if not turns or images != len(visuals):
        raise ValueError(f"{len(turns)} turns with {images} images, for {len(visuals)} images")
    spelled = [_spelled(vlm, each) for each in visuals]
    kinds = [each.modality for each in spelled]
    # The same turns with marks for texts show what the template does, independently of the texts.
    marks = [str(10**15 + i) for i in range(len(texts))]
    marked = _render(vlm, turns, kinds, marks)
    if any(mark not in marked for mark in marks):
        raise _unsupported("leaves out a text of these turns")
    rendered = [_render(vlm, turns, kinds, defuse(vlm, texts)), marked]
    ids, marked_ids = _tokenize(vlm, [_insert(vlm, text, spelled) for text in rendered])
    counts = [count for each in spelled for count in each.counts]
    special = vlm.special_tokens
    if special.count_visual(ids) != len(counts):
        raise _unsupported("does not place each image of these turns once")
    if special.among(ids) != special.among(marked_ids):
        raise _unsupported("makes special tokens out of the texts of these turns")
    return torch.tensor([_expanded(ids, special.visual_ids, counts)], device=vlm.device)


def answer_text(vlm: Vlm, token_ids: Sequence[int]) -> str:
    """Decode an answer, without special tokens and surrounding space."""
    return decoded(vlm, token_ids).strip()


def decoded(vlm: Vlm, token_ids: Sequence[int]) -> str:
    """Decode tokens without clean-up, so that further tokens only add text; special ones are skipped."""
    text = vlm.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _spelled(vlm: Vlm, visual: int | Spelled) -> Spelled:
    return visual if isinstance(visual, Spelled) else Spelled(placeholder(vlm), (visual + 1,))


def _render(vlm: Vlm, turns: Sequence[Turn], kinds: Sequence[str], texts: Sequence[str]) -> str:
    """Render the turns with the checkpoint's template, with `texts` in place of their own."""
    rest, visuals = iter(texts), iter(kinds)
    contents = [[None if part is None else next(rest) for part in turn.content] for turn in turns]
    messages: list[Any] = [
        {
            "role": turn.role,
            "content": [{"type": next(visuals)} if p is None else {"type": "text", "text": p} for p in parts],
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


def _insert(vlm: Vlm, rendered: str, spelled: Sequence[Spelled]) -> str:
    """Put what each image or video becomes in the place of its placeholder."""
    names = vlm.family.placeholders
    pieces = re.split("(" + "|".join(re.escape(name) for name in names.values()) + ")", rendered)
    if [names[each.modality] for each in spelled] != pieces[1::2]:
        raise _unsupported("does not place each image of these turns once")
    pieces[1::2] = [each.text for each in spelled]
    return "".join(pieces)


def _tokenize(vlm: Vlm, texts: list[str]) -> list[list[int]]:
    """Tokenize whole prompts; a first token that the template left to the tokenizer comes in front."""
    first = vlm.tokenizer.bos_token
    has_first = first is not None and texts[0].startswith(str(first))
    adds = vlm.family.adds_special and not has_first
    return vlm.tokenizer(texts, add_special_tokens=adds)["input_ids"]


def _unsupported(what: str) -> VlmError:
    return VlmError("unsupported_turns", f"the chat template of the model {what}.")


def _expanded(ids: Sequence[int], visual: frozenset[int], counts: Sequence[int]) -> list[int]:
    """Repeat each visual token as often as it has features."""
    rest, expanded = iter(counts), list[int]()
    for token in ids:
        expanded += [token] * next(rest) if token in visual else (token,)
    return expanded


def placeholder(vlm: Vlm) -> str:
    """Return the visual token of images as text."""
    return vlm.family.visual_token("image")


def defuse(vlm: Vlm, texts: Sequence[str]) -> list[str]:
    """Break every special token spelled out in a text by a space, also where it spans several texts.

    Not split_special_tokens: the tokenizer keeps that mode as state, which threads would share.
    """
    spelled, longest = vlm.special_tokens.spelled, vlm.special_tokens.longest
    defused: list[str] = []
    before = ""  # the end of the template's own text, which may continue in the next one
    for text in texts:
        broken = spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        if spelled.search(before + broken):
            broken = f" {broken}"
        defused.append(broken)
        before = (before + broken)[-longest:]
    return defused
