"""Scoring: hand-checked."""

from __future__ import annotations

import pytest

from evals.rooms import Question
from evals.rooms.score import accuracy_by_type, blind_guess, is_right


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("Red.", "red", True),
        ("the red cube", "red cube", True),
        ("2 metres", "2 metres", True),
        ("1.5", "1.5", True),
        ("12", "1.2", False),
        ("no", "yes", False),
        ("", "0", False),
        ("cube red", "red cube", False),
    ],
)
def test_is_right(answer: str, truth: str, right: bool) -> None:
    assert is_right(answer, truth) is right


ASKED = [
    Question("How many?", "1", "count"),
    Question("How many?", "1", "count"),
    Question("How many?", "3", "count"),
    Question("Left or right?", "left", "left/right"),
]


def test_accuracy_by_type() -> None:
    found = accuracy_by_type(ASKED, ["1", "2", "3", "right"])
    assert found == {"count": 2 / 3, "left/right": 0.0, "overall": 0.5}


def test_blind_guess_is_the_commonest_answer_or_even_odds() -> None:
    assert blind_guess(ASKED) == {"count": 2 / 3, "left/right": 1.0, "overall": 0.75}
    even = [Question("?", word, "size") for word in ("a", "b", "c", "d")]
    assert blind_guess(even)["size"] == 0.5
