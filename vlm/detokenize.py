"""The text of an answer while its tokens are still coming, for streams.

Knows no stream: it says what is new and will never change, and its caller sends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlm.model import Vlm
from vlm.prompt import answer_text, decoded

HALF = "\ufffd"  # what bytes of a character become while some are missing


class TextSoFar:
    """Turn the tokens of one answer into text piece by piece; the pieces together are its `answer_text`.

    For one answer and one thread. Holds back what later tokens may change: a character whose bytes have not
    all come, and space that may turn out to be the end, which an answer does not have.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._ids: list[int] = []
        self._said = 0  # characters

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the tokens that have come since the last call; return what is new and final, maybe ""."""
        self._ids += token_ids
        return self._say(decoded(self._vlm, self._ids).rstrip(HALF).strip())

    def rest(self) -> str:
        """Return the text that was held back, once the answer has ended."""
        return self._say(answer_text(self._vlm, self._ids))

    def _say(self, text: str) -> str:
        new = text[self._said :]
        self._said += len(new)
        return new
