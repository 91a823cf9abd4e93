"""What a real server of vLLM answered, read as ours reads it; the stub's events have the same form.

`VLLM_RECORD=1 make test-vllm` records the exchanges anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.language.faults import Fault, of_status
from service.language.wire import Received, events
from tests.language.stub_server import Stub
from tests.service.chats import chat
from tests.service.live import Live
from vlm import GeneratedSequence, GenerationParams

FOLDER = Path(__file__).parent / "recorded"
ENDS = {
    "stopped_by_its_own_end": "stop",
    "stopped_by_a_token": "stop",
    "length": "length",
    "logprobs": "length",
    "logprobs_of_the_chosen": "length",
    "json_that_no_token_spells": "language_failed",
    "grammar": "stop",
    "grammar_with_logprobs": "length",
    "grammar_behind_another_library": "language_failed",
    "grammar_that_is_none": "language_refused",
    "nan": "numerical_error",
    "empty_prompt": "language_refused",
    "too_long": "language_refused",
    "no_room": "length",
    "too_many_tokens": "language_refused",
    "other_width": "language_refused",
    "other_model": "language_wrong_model",
    "too_many_logprobs": "language_refused",
}
SIZE = 300


def recorded(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def replay(kept: dict[str, Any]) -> tuple[str, Received]:
    """Return how an exchange ends for the service: as an answer does, or with the code of a fault."""
    asked = kept["request"]
    top = asked.get("logprobs")
    params = GenerationParams(
        max_new_tokens=asked.get("max_tokens", 16), top_logprobs=None if top is None else min(top, 20)
    )
    eos = frozenset(asked.get("stop_token_ids") or ())
    answer = Received(GeneratedSequence(0, 12), params, params.max_new_tokens, SIZE, eos)

    async def arriving() -> AsyncIterator[bytes]:
        for event in kept["events"]:
            yield event.encode() + b"\n\n"

    async def follow() -> str:
        if kept["status"] != 200:
            raise of_status(kept["status"], (kept["body"] or "").encode(), {})
        has_ended = False
        async for event in events(arriving()):
            for step in answer.steps(event):
                if answer.row.finish_reason is None:
                    answer.append(step)
            has_ended = answer.end() or has_ended
        return str(answer.row.finish_reason) if has_ended else "language_incomplete"

    try:
        return asyncio.run(follow()), answer
    except Fault as fault:
        return fault.code, answer


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_a_recorded_exchange_ends_as_it_should(name: str, end: str) -> None:
    assert replay(recorded(name))[0] == end


def test_a_recorded_answer_brings_counts_and_times() -> None:
    _, answer = replay(recorded("length"))
    assert len(answer.row.token_ids) == 3
    assert answer.cached_tokens is not None and answer.waited_s is not None
    _, answer = replay(recorded("logprobs"))
    assert len(answer.row.logprobs) == 3 and all(len(one.top) == 2 for one in answer.row.logprobs)


def test_the_stub_writes_what_was_recorded(apart: Live, stub: Stub) -> None:
    """Every name in an event of the stub is one that vLLM writes, at the same place, of the same kind."""
    stub.written.clear()
    body = chat(max_tokens=3, logprobs=True, top_logprobs=2)
    assert apart.client.post("/v1/chat/completions", json=body).status_code == 200
    written = stub.written
    kept = recorded("logprobs")["events"]
    real = [json.loads(one.removeprefix("data: ")) for one in kept if "[DONE]" not in one]
    assert not [wrong for event in written for wrong in missing(event, real)]
    assert {"usage", "choices"} <= written[-1].keys() and written[-1]["choices"] == []


def missing(ours: Any, theirs: list[Any], where: str = "") -> list[str]:
    """Name what stands in ours and in none of theirs."""
    if isinstance(ours, dict):
        held = [one for one in theirs if isinstance(one, dict)]
        wrong = []
        for name, value in ours.items():
            inner = [one[name] for one in held if name in one]
            if where.endswith("top_logprobs"):  # named by tokens
                inner = [value for one in held for value in one.values()]
            wrong += missing(value, inner, f"{where}.{name}") if inner else [f"{where}.{name}"]
        return wrong
    if isinstance(ours, list):
        inner = [value for one in theirs if isinstance(one, list) for value in one]
        return [wrong for value in ours for wrong in missing(value, inner, where)]
    kinds = {type(one) for one in theirs}
    return (
        [] if ours is None or type(ours) in kinds or isinstance(ours, float | int) else [f"{where}: {ours!r}"]
    )


def test_what_stands_in_no_recording_is_noticed() -> None:
    real = [{"a": {"b": [1]}, "c": "x"}]
    assert missing({"a": {"b": [2]}, "c": "y"}, real) == []
    assert missing({"a": {"d": 1}}, real) == [".a.d"]
    assert missing({"c": {"e": 1}}, real) == [".c.e"]
    assert missing({"a": {"b": ["z"]}}, real) == [".a.b: 'z'"]
