"""The text of an answer while its tokens are still coming, for streams: only text that will not change."""

from __future__ import annotations

from collections.abc import Sequence

from vlm.model import Vlm
from vlm.prompt import answer_text, decoded

HALF = "\ufffd"  # decoded from an incomplete UTF-8 sequence
WINDOW, CONTEXT = 64, 8
"""Tokens from which on fewer are decoded together, and how many stay to show the next what is before them."""


class IncrementalDetokenizer:
    """Turn the tokens of one answer into text piece by piece; the pieces together are its `answer_text`.

    For one answer and one thread. Holds back what later tokens may change: an incomplete character, and
    trailing space, which an answer does not have. Only the last tokens are decoded each time, so that a long
    answer takes no longer per token than a short one.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._ids: list[int] = []
        self._start = 0  # of the window in the ids
        self._before = ""  # their text up to there
        self._num_chars = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the tokens that have come since the last call; return what is new and final, maybe ""."""
        self._ids += token_ids
        text = decoded(self._vlm, self._ids[self._start :])
        new = self._emit((self._before + text).rstrip(HALF).strip())
        if len(self._ids) - self._start >= WINDOW:
            self._move(text)
        return new

    def flush(self) -> str:
        """Return the text that was held back, once the answer has ended."""
        return self._emit(answer_text(self._vlm, self._ids))

    def _emit(self, text: str) -> str:
        new = text[self._num_chars :]
        self._num_chars += len(new)
        return new

    def _move(self, text: str) -> None:
        """Begin the window later, where its tokens give the same text without those before."""
        start = len(self._ids) - CONTEXT
        context = decoded(self._vlm, self._ids[start:])
        if context.strip() and text.endswith(context) and not text.endswith(HALF):
            self._before += text[: len(text) - len(context)]
            self._start = start
