"""Server-sent events: whatever a value holds, a client reads one event, and the value again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from service.api.sse import DONE, chunk_event, event, text_event


def read(data: bytes) -> Iterator[tuple[str | None, str]]:
    """Read a stream with the decoder of the official client."""
    for one in SSEDecoder().iter_bytes(iter([data])):
        yield one.event, one.data


def test_events_of_a_question() -> None:
    stream = (
        text_event("2")
        + b": a comment, which clients skip\n\n"
        + event("answer", {"answer": "2"})
        + event("error", {"error": {}})
    )
    assert list(read(stream)) == [
        ("text", '{"text":"2"}'),
        ("answer", '{"answer":"2"}'),
        ("error", '{"error":{}}'),
    ]


def test_chunks_of_a_chat() -> None:
    assert list(read(chunk_event({"choices": []}) + DONE)) == [(None, '{"choices":[]}'), (None, "[DONE]")]


@given(st.text())
def test_no_text_can_end_an_event(text: str) -> None:
    ((name, data),) = read(text_event(text))
    assert (name, json.loads(data)) == ("text", {"text": text})
    ((_, chunk),) = read(chunk_event({"a": text}))
    assert json.loads(chunk) == {"a": text}


@pytest.mark.parametrize("end", ["\n\n", "\r", "\r\n\r\n", "\x85", "\u2028", "\x0b", "\x1c", "\ud800"])
def test_line_ends_of_all_kinds(end: str) -> None:
    encoded = text_event(f"a{end}data: b")
    assert encoded.count(b"\n") == 3 and len(encoded.decode().splitlines()) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x"])
def test_what_json_has_not_is_an_error_of_ours(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        chunk_event({"a": value})
