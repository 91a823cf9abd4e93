"""The special tokens of a model: which ids they are, and how they are spelled in a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from vlm.families import Family


@dataclass(frozen=True)
class SpecialTokens:
    """Know the special tokens of a tokenizer, and the visual ones of its family.

    `ids`: all of them, but not the one for unknown words, which any text may give. `visual_ids`: what stands
    for features. `spelled` finds their texts, the longest first; `longest` is its number of characters.
    """

    ids: frozenset[int]
    visual_ids: frozenset[int]
    spelled: re.Pattern[str]
    longest: int

    def among(self, ids: Sequence[int]) -> list[int]:
        """Keep the special ones among ids, in order."""
        return [id_ for id_ in ids if id_ in self.ids]

    def count_visual(self, ids: Sequence[int]) -> int:
        """Count the ids that stand for features."""
        return sum(id_ in self.visual_ids for id_ in ids)


def read_special_tokens(tokenizer: PreTrainedTokenizerFast, family: Family) -> SpecialTokens:
    """Collect the special tokens; of a large tokenizer this takes milliseconds."""
    added = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    visual = frozenset(family.visual_token_ids)
    spellings = {*added.values(), family.visual_token("image"), *family.placeholders.values()}
    longest_first = sorted(spellings, key=len, reverse=True)
    return SpecialTokens(
        frozenset(id_ for id_ in (*added, *visual) if id_ != tokenizer.unk_token_id),
        visual,
        re.compile("|".join(map(re.escape, longest_first))),
        len(longest_first[0]),
    )
