"""The tokenizer of training has a word for everything that RoomQA says."""

from __future__ import annotations

import pytest

from tests.training.conftest import shipped_words
from training.model import words_of


@pytest.mark.long
def test_the_shipped_tokenizer_has_the_words_of_2500_scenes() -> None:
    assert words_of(2500) == shipped_words()


def test_words_come_in_order_and_from_scenes() -> None:
    few = words_of(3)
    assert few == sorted(few) and set(few) < set(shipped_words())
