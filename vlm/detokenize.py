"""The text of an answer while its tokens are still coming, for streams: only text that will not change."""

from __future__ import annotations

from collections.abc import Sequence

from vlm.model import Vlm
from vlm.prompt import answer_text, decoded

HALF = "\ufffd"  # decoded from an incomplete UTF-8 sequence


class IncrementalDetokenizer:
    """Turn the tokens of one answer into text piece by piece; the pieces together are its `answer_text`.

    For one answer and one thread. Holds back what later tokens may change: an incomplete character, and
    trailing space, which an answer does not have.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._ids: list[int] = []
        self._num_chars = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the tokens that have come since the last call; return what is new and final, maybe ""."""
        self._ids += token_ids
        return self._emit(decoded(self._vlm, self._ids).rstrip(HALF).strip())

    def flush(self) -> str:
        """Return the text that was held back, once the answer has ended."""
        return self._emit(answer_text(self._vlm, self._ids))

    def _emit(self, text: str) -> str:
        new = text[self._num_chars :]
        self._num_chars += len(new)
        return new
