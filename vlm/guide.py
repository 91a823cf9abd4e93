"""Keep one answer inside a grammar: which tokens may come next, and the text so far.

`TokenGuide` is for models whose tokens can spell every text. `WordGuide` is for models of whole words: the
model chooses the words; what it cannot spell, such as braces, quotes and names of fields, is written for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from vlm.vocabulary import Vocabulary

Ended = Literal["stop", "unspellable"]
Pick = Callable[[Tensor], int]
"""Choose a token by the logits of the model, from those that a mask [vocabulary] allows."""
STRUCTURE = (b'"', b"}", b"]", b"{", b"[", b",", b":", b"null")
"""What may be written where the model ends or has no word: the first that fits, which closes what is open."""
BOUNDARIES = b'", }]'
WORD_BYTES = bytes(byte for byte in range(256) if byte > 0x7F or chr(byte).isalnum() or byte in b"._-")
MAX_WRITTEN = 16_384
"""Bytes written between the words of one answer, for a grammar may go on for ever."""


class Guide(Protocol):
    """Guide one answer; `is_complete` once nothing can follow its text."""

    @property
    def text(self) -> str: ...
    @property
    def is_complete(self) -> bool: ...
    def next_token(self, pick: Pick) -> int | Ended: ...


class _Matched:
    """Hold the state of the grammar, and the text that it has matched."""

    def __init__(self, matcher: LLMatcher, ends: frozenset[int]) -> None:
        self._matcher, self._text = matcher, bytearray()
        self._ends = torch.tensor(sorted(ends))

    @property
    def text(self) -> str:
        """Return the text so far, without half a character at its end."""
        return self._text.decode(errors="ignore")

    @property
    def is_complete(self) -> bool:
        """Return whether the text fits the grammar and nothing can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def _allowed(self) -> Tensor:
        """Return which tokens of the grammar may come next, [at least as many as there are] of bool."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little").astype(bool))

    def _consume(self, token: int, spelled: bytes) -> bool:
        self._text += spelled
        return self._matcher.consume_token(token)


class TokenGuide(_Matched):
    """Guide an answer whose tokens can spell every text."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
        super().__init__(matcher, ends)
        self._vocabulary = vocabulary

    @property
    def can_end(self) -> bool:
        """Return whether the text fits the grammar as it is."""
        return self._matcher.is_accepting()

    def next_token(self, pick: Pick) -> int | Ended:
        """Let the model choose among the tokens that fit; "unspellable" if none does."""
        allowed = self._allowed()[: len(self._vocabulary.spelled)] & self._vocabulary.ordinary
        allowed[self._ends] = self.can_end
        if self._matcher.is_error() or not allowed.any():
            return "unspellable"
        token = pick(allowed)
        if token in self._ends:
            return "stop"
        return token if self._consume(token, self._vocabulary.spelled[token]) else "unspellable"

    def follow(self, token: int) -> int | Ended | None:
        """Take a token that was chosen elsewhere; None if it does not fit.

        "stop" for the end of an answer, "unspellable" if the grammar is too complex to follow.
        """
        if token in self._ends or not self._vocabulary.spelled[token]:  # there another token may be the end
            return "stop" if self.can_end else None
        fits = self._matcher.validate_tokens([token]) == 1
        if self._matcher.is_error():
            return "unspellable"
        return token if fits and self._consume(token, self._vocabulary.spelled[token]) else None


@dataclass(frozen=True, eq=False)
class Spellings:
    """Hold the strings that words may stand for, and every single byte, as tokens of a grammar.

    first, later: the word that a string stands for at the beginning of a text, and behind another word.
    size: how many words there are.
    """

    strings: tuple[bytes, ...]
    first: Mapping[int, int] = field(repr=False)
    later: Mapping[int, int] = field(repr=False)
    size: int

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Return the id of every string."""
        return {string: id_ for id_, string in enumerate(self.strings)}


class WordGuide(_Matched):
    """Guide an answer of whole words.

    What the grammar leaves no choice about is written. Where it leaves one, the model chooses among the words
    that fit; its end stands for what closes the value.
    """

    def __init__(self, matcher: LLMatcher, spellings: Spellings, ends: frozenset[int]) -> None:
        super().__init__(matcher, ends)
        self._spellings = spellings
        self._written, self._follows_word = 0, False
        self._write_forced()

    def next_token(self, pick: Pick) -> int | Ended:
        """Let the model choose a word; "unspellable" where it has none for what the grammar asks for."""
        while not self.is_complete:
            allowed = self._allowed().nonzero().flatten().tolist()
            words = self._words(allowed)
            closing, is_accepting = self._closing(allowed, words), self._matcher.is_accepting()
            can_end = bool(closing) or is_accepting
            if self._matcher.is_error() or not (words or can_end) or self._written > MAX_WRITTEN:
                return "unspellable"
            token = pick(self._mask(words, can_end)) if words else int(self._ends[0])
            if token in words:
                self._consume(words[token], self._spellings.strings[words[token]])
                self._follows_word = True
                self._write_forced()
                return token
            if is_accepting:
                return "stop"
            self._write(closing)
            self._write_forced()
        return "stop"

    def _words(self, allowed: Iterable[int]) -> dict[int, int]:
        """Return the words that fit as a whole, with the string that each stands for."""
        table = self._spellings.later if self._follows_word else self._spellings.first
        words: dict[int, int] = {}
        for string in allowed:
            if string in table and table[string] not in words and self._can_end_behind(string):
                words[table[string]] = string
        return words

    def _can_end_behind(self, string: int) -> bool:
        ids = self._spellings.ids
        return any(self._matcher.validate_tokens([string, ids[bytes([byte])]]) == 2 for byte in BOUNDARIES)

    def _closing(self, allowed: Iterable[int], words: Mapping[int, int]) -> bytes:
        """Return what the grammar lets be written in place of a word, b"" if nothing."""
        strings = self._spellings.strings
        sayable = {strings[string][:1] for string in words.values()}
        free = {strings[id_] for id_ in allowed if id_ < len(strings)} - sayable
        return next((text for text in STRUCTURE if text[:1] in free), b"")

    def _mask(self, words: Mapping[int, int], can_end: bool) -> Tensor:
        mask = torch.zeros(self._spellings.size, dtype=torch.bool)
        mask[list(words)] = True
        mask[self._ends] = can_end
        return mask

    def _write_forced(self) -> None:
        """Write what has to come next, up to the last beginning of a word, which is the model's to choose."""
        self._write(self._matcher.compute_ff_bytes().rstrip(WORD_BYTES))

    def _write(self, text: bytes) -> None:
        for at in range(len(text)):
            self._consume(self._spellings.ids[text[at : at + 1]], text[at : at + 1])
        self._written += len(text)
        self._follows_word = self._follows_word and not text
