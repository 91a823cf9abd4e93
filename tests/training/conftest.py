"""The words of RoomQA without drawing 2,500 scenes: those of the shipped tokenizer are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import AutoTokenizer

import training.model
from training.model import SPECIAL
from vlm.load import EMBEDDED


def shipped_words() -> list[str]:
    """Return the words of room-tiny in their order, without special tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(EMBEDDED["room-tiny"])
    ids: dict[str, int] = tokenizer.get_vocab()
    return [word for word in sorted(ids, key=lambda word: ids[word]) if word not in SPECIAL]


@pytest.fixture(scope="package", autouse=True)
def words_of_roomqa() -> Iterator[None]:
    words = shipped_words()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training.model, "_words", lambda: words)
        yield
