"""What the tokens of a model spell, as bytes, and whether they can spell every text.

Byte-level tokenizers can. A tokenizer of whole words, as the embedded model has, can spell its own words
only: it has no braces and no quotes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from llguidance import LLTokenizer, TokenizerWrapper
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PRINTABLE = range(0x20, 0x7F)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Hold what every token spells, by id: b"" for special tokens and ids without a token.

    matching: the same for the grammar library; None where the tokens are whole words, joined by spaces.
    special: the names of special tokens, by id.
    """

    spelled: tuple[bytes, ...]
    special: dict[int, bytes]
    matching: LLTokenizer | None

    @cached_property
    def ordinary(self) -> Tensor:
        """Return which ids have a spelling, [vocabulary] of bool."""
        return torch.tensor([bool(spelled) for spelled in self.spelled])

    def piece(self, token_id: int, is_first: bool) -> bytes:
        """Return what a token adds to a text; words but the first begin with a space."""
        if token_id in self.special:
            return self.special[token_id]
        spelled = self.spelled[token_id]
        return spelled if self.matching is not None or is_first or not spelled else b" " + spelled


def read_vocabulary(tokenizer: PreTrainedTokenizerFast, size: int, eos_token_id: int) -> Vocabulary:
    """Read the vocabulary of a fast tokenizer. size: rows of logits, at least as many as there are tokens."""
    added = tokenizer.added_tokens_decoder
    special = {id_: token.content.encode() for id_, token in added.items() if token.special}
    matching = _byte_level(tokenizer, size, eos_token_id)
    if matching is not None:
        spelled = [b"" if id_ in special else matching.decode_bytes([id_]) for id_ in range(size)]
        if _spells_everything(spelled):
            return Vocabulary(tuple(spelled), special, matching)
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    spelled = [b"" if id_ in special else str(word).encode() for id_, word in enumerate(words)]
    return Vocabulary((*spelled, *[b""] * (size - len(spelled))), special, None)


def tokenizer_of(strings: Sequence[bytes]) -> LLTokenizer:
    """Make a tokenizer of these different strings, one token each, and a last token that ends a text."""
    return LLTokenizer(TokenizerWrapper(_Strings(strings)), n_vocab=len(strings) + 1, slices=[])


def _byte_level(tokenizer: PreTrainedTokenizerFast, size: int, eos_token_id: int) -> LLTokenizer | None:
    from llguidance.hf import from_tokenizer  # imports transformers

    try:
        return from_tokenizer(tokenizer, n_vocab=size, eos_token=eos_token_id)
    except Exception:  # the library knows byte-level tokenizers and those that fall back to bytes
        return None


def _spells_everything(spelled: Sequence[bytes]) -> bool:
    single = {token for token in spelled if len(token) == 1}
    return all(bytes([byte]) in single for byte in PRINTABLE)


class _Strings:
    """Describe strings as the grammar library asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, strings: Sequence[bytes]) -> None:
        self.tokens = [*strings, b"<end>"]
        self.eos_token_id = len(strings)
        self.special_token_ids = [self.eos_token_id]
        self._ids = {string: id_ for id_, string in enumerate(strings)}

    def __call__(self, text: Any) -> list[int]:
        data = text.encode() if isinstance(text, str) else bytes(text)
        return [self._ids[bytes([byte])] for byte in data]
