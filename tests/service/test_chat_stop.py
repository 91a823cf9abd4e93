"""Texts that end an answer, whole and in pieces: both ways show the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.stop_sequences import StopSequences, truncate_at_stop

CASES = [
    ("two cubes", [], "two cubes", False),
    ("two cubes", ["x"], "two cubes", False),
    ("two cubes", [" "], "two", True),
    ("two cubes", ["cubes", "o c"], "tw", True),
    ("two", ["two"], "", True),
    ("aab", ["ab"], "a", True),
    ("xabb", ["abb", "b"], "xa", True),  # b is complete first
    ("xab", ["b", "ab"], "x", True),
    ("", ["a"], "", False),
]


@pytest.mark.parametrize(("text", "stops", "shown", "is_cut"), CASES)
def test_cut(text: str, stops: list[str], shown: str, is_cut: bool) -> None:
    assert truncate_at_stop(text, stops) == (shown, is_cut)


@given(
    st.lists(st.text("ab ", max_size=3)),
    st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4),
)
def test_pieces_show_what_the_whole_would(pieces: list[str], stops: list[str]) -> None:
    stream, seen = StopSequences(stops), ""
    whole, is_cut = truncate_at_stop("".join(pieces), stops)
    for piece in pieces:
        seen += stream.push(piece)
        assert whole.startswith(seen)  # nothing is shown that has to be taken back
    assert stream.is_hit is is_cut
    held = whole.removeprefix(seen)
    assert not held or any(stop.startswith(held) for stop in stops)  # and nothing is held back for nothing
    assert not (held and is_cut)
