"""What travels between us and a language server, read strictly: every form of an answer, and rubbish."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx2
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.language.faults import MOST_DETAIL, Fault, of_status, of_transport
from service.language.wire import MAX_LINE_BYTES, Received, events, prompt_part, request_fields
from tests.language.stub_server import loaded
from tests.vlm.conftest import write_checkpoint
from vlm import GeneratedSequence, GenerationParams, TokenLogprob, Vlm, load_vlm
from vlm.grammar import compile_schema

EOS, SIZE = 5, 100


def received(most: int = 4, top: int | None = None) -> Received:
    params = GenerationParams(max_new_tokens=most, top_logprobs=top)
    return Received(GeneratedSequence(0, 10), params, most, SIZE, frozenset({EOS}))


def event(*tokens: Any, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "", "token_ids": list(tokens), "finish_reason": reason, **more}]}


def follow(answer: Received, *given: dict[str, Any]) -> GeneratedSequence:
    for one in given:
        for step in answer.steps(one):
            answer.append(step)
            if answer.row.finish_reason is not None:
                return answer.row
        if answer.end():
            return answer.row
    return answer.row


def read(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def all_of() -> list[dict[str, Any]]:
        return [one async for one in events(arriving())]

    return asyncio.run(all_of())


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(Fault) as caught:
        call(*args)
    return caught.value.code


def test_embeddings_arrive_as_they_were() -> None:
    wide = torch.randn(3, 8, 6)
    fields = request_fields("m", GenerationParams(), 7, [EOS], "salt")
    body = json.loads(prompt_part(wide[1, :5]) + json.dumps(fields).encode()[1:])
    assert torch.equal(loaded(body["prompt_embeds"]), wide[1, :5])
    assert len(body["prompt_embeds"]) < 3000, "and not the tensor that they are a part of"
    assert (body["model"], body["max_tokens"], body["stop_token_ids"], body["cache_salt"]) == (
        "m",
        7,
        [EOS],
        "salt",
    )


def test_a_seed_is_sent_where_something_is_drawn() -> None:
    def fields(**params: Any) -> dict[str, Any]:
        return request_fields("m", GenerationParams(**params), 1, [EOS])

    drawn = fields(temperature=0.5, top_p=0.3, seed=2**63 - 1)
    assert (drawn["seed"], drawn["top_p"], drawn["temperature"]) == (2**63 - 1, 0.3, 0.5)
    greedy = fields(seed=4, top_p=0.3, top_logprobs=0)
    assert "seed" not in greedy and greedy["top_p"] == 1 and greedy["logprobs"] == 0


@given(st.integers(1, 40))
def test_events_may_be_cut_anywhere(size: int) -> None:
    sent = b': a comment\n\ndata: {"a": 1}\r\n\r\nevent: x\ndata:{"b": "\xe2\x80\xa8"}\n\n'
    sent += b'data: [DONE]\n\ndata: {"c": 1}\n\n'
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert read(pieces) == [{"a": 1}, {"b": "\u2028"}]


@pytest.mark.parametrize("line", [b"data: {", b"data: []", b"data: 3", b"data: \xff"])
def test_events_that_are_no_objects_are_garbled(line: bytes) -> None:
    assert code_of(read, [line + b"\n\n"]) == "language_garbled"


def test_an_event_has_a_limit() -> None:
    assert code_of(read, [b"data: " + b"x" * MAX_LINE_BYTES, b"x" * 9]) == "language_garbled"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "bad", "code": 400}, "language_refused"),
        ({"message": "gone", "code": 404}, "language_wrong_model"),
        ({"message": "CUDA out of memory", "code": 500}, "language_out_of_memory"),
        ({"message": "lost"}, "language_failed"),
        ("text", "language_failed"),
    ],
)
def test_an_error_in_a_stream_has_the_code_of_its_status(error: Any, code: str) -> None:
    assert code_of(read, [b"data: " + json.dumps({"error": error}).encode() + b"\n\n"]) == code


def test_an_answer_ends_as_a_decoding_ends_it() -> None:
    row = follow(received(), event(1), event(2, EOS, 9, reason="stop"))
    assert (row.token_ids, row.finish_reason) == ([1, 2], "stop")
    row = follow(received(), event(EOS, reason="stop"))
    assert (row.token_ids, row.finish_reason) == ([], "stop")
    row = follow(received(), event(1, 2), event(3, 4, 6))
    assert (row.token_ids, row.finish_reason) == ([1, 2, 3, 4], "length")
    row = follow(received(), event(1, reason="length"))
    assert (row.token_ids, row.finish_reason) == ([1], "length"), "its context is shorter than it said"
    row = follow(received(), event(1), event(reason="stop"))
    assert (row.token_ids, row.finish_reason) == ([1], "stop")
    assert follow(received(), event(1)).finish_reason is None


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    """A model whose tokens are bytes."""
    return load_vlm(write_checkpoint(tmp_path_factory.mktemp("wire") / "tiny", byte_level=True))


def bound(vlm: Vlm, schema: dict[str, Any], most: int = 40) -> Received:
    params = GenerationParams(max_new_tokens=most, grammar=compile_schema(vlm, schema))
    return Received(
        GeneratedSequence(0, 10), params, most, vlm.text_config.vocab_size, frozenset(vlm.eos_token_ids)
    )


def spelled(vlm: Vlm, text: str) -> list[int]:
    return vlm.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_an_answer_with_a_schema_ends_where_nothing_can_follow(speller: Vlm) -> None:
    """The server goes on: its end of an answer is one more token, and may be another one than ours."""
    tokens = spelled(speller, '"zulu"')
    row = follow(bound(speller, {"enum": ["zulu", "yard"]}), event(*tokens, 5, 60, 61))
    assert (row.token_ids, row.finish_reason, row.guided_text) == (tokens, "stop", '"zulu"')
    short = follow(bound(speller, {"enum": ["zulu", "yard"]}, most=3), event(*tokens))
    assert (short.token_ids, short.finish_reason, short.guided_text) == (tokens[:3], "length", '"zu')


@pytest.mark.parametrize("end", ["<|im_end|>", "<pad>"])
def test_an_answer_that_may_go_on_ends_with_a_special_token(speller: Vlm, end: str) -> None:
    digits = spelled(speller, "12")
    token = speller.tokenizer.convert_tokens_to_ids(end)
    row = follow(bound(speller, {"type": "integer"}), event(*digits, token))
    assert (row.token_ids, row.finish_reason, row.guided_text) == (digits, "stop", "12")


@pytest.mark.parametrize(
    ("said", "reason", "code"),
    [
        ('"middle', None, "language_garbled"),
        ('"le<|im_end|>', None, "language_garbled"),
        ('"le', "stop", "language_incomplete"),
        ("7", None, "language_garbled"),
    ],
)
def test_what_leaves_its_schema_is_no_answer(speller: Vlm, said: str, reason: str | None, code: str) -> None:
    answer = bound(speller, {"enum": ["left", "right"]})
    assert code_of(follow, answer, event(*spelled(speller, said), reason=reason)) == code
    assert answer.row.finish_reason is None


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls"])
def test_what_was_not_finished_is_only_half(reason: str) -> None:
    assert code_of(follow, received(), event(1, reason=reason)) == "language_incomplete"


@pytest.mark.parametrize(
    "wrong",
    [
        event(-1),
        event(SIZE),
        event(True),
        event("7"),
        event(1.0),
        {"choices": [3]},
        {"choices": "x"},
        {"choices": [{"token_ids": 5}]},
        {"choices": [], "usage": 4},
        {"choices": [], "usage": {"prompt_tokens_details": 4}},
        {"choices": [], "metrics": 4},
    ],
)
def test_answers_of_another_form_are_garbled(wrong: dict[str, Any]) -> None:
    assert code_of(received().steps, wrong) == "language_garbled"


def test_probabilities_are_read_and_ranked() -> None:
    held = {
        "tokens": ["token_id:3"],
        "token_logprobs": [-2.0],
        "top_logprobs": [{"token_id:3": -2.0, "token_id:8": -0.5, "token_id:9": -1.5}],
    }
    answer = received(top=2)
    row = follow(answer, event(3, logprobs=held))
    assert row.logprobs == [TokenLogprob(3, -2.0, ((8, -0.5), (9, -1.5)))]
    assert follow(received(top=0), event(3, logprobs=held)).logprobs == [TokenLogprob(3, -2.0, ())]


@pytest.mark.parametrize(
    ("held", "code"),
    [
        (None, "language_garbled"),
        ({"token_logprobs": [-1], "top_logprobs": []}, "language_garbled"),
        ({"token_logprobs": [-1], "top_logprobs": [{"3": "x"}]}, "language_garbled"),
        ({"token_logprobs": [-1], "top_logprobs": [{"token_id:100": -1}]}, "language_garbled"),
        ({"token_logprobs": [None], "top_logprobs": [{"token_id:3": None}]}, "numerical_error"),
        ({"token_logprobs": [math.nan], "top_logprobs": [{"token_id:3": -1}]}, "numerical_error"),
    ],
)
def test_probabilities_of_another_form_are_refused(held: Any, code: str) -> None:
    assert code_of(received(top=1).steps, event(3, logprobs=held)) == code


def test_counts_and_times_come_with_the_last_event() -> None:
    answer = received()
    usage = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 6}}
    assert answer.steps({"choices": [], "usage": usage, "metrics": {"queue_time_ms": 250}}) == []
    assert (answer.cached_tokens, answer.waited_s) == (6, 0.25)
    silent = received()
    silent.steps({"choices": [], "usage": {"prompt_tokens": 10}, "metrics": {"queue_time_ms": None}})
    assert (silent.cached_tokens, silent.waited_s) == (None, None)


@pytest.mark.parametrize(
    ("error", "has_begun", "code"),
    [
        (httpx2.ConnectError("x"), False, "language_down"),
        (httpx2.ConnectTimeout("x"), False, "language_slow"),
        (httpx2.ReadTimeout("x"), True, "language_slow"),
        (httpx2.ReadTimeout("x"), False, "language_slow"),
        (httpx2.ReadError("x"), True, "language_cut"),
        (httpx2.RemoteProtocolError("x"), True, "language_cut"),
        (httpx2.RemoteProtocolError("x"), False, "language_down"),
        (httpx2.UnsupportedProtocol("x"), False, "language_failed"),
    ],
)
def test_every_end_of_a_connection_has_a_code(error: httpx2.HTTPError, has_begun: bool, code: str) -> None:
    assert of_transport(error, has_begun).code == code


def test_a_server_s_own_words_are_short_and_in_one_line() -> None:
    fault = of_status(500, b"a\nb\n" + b"x" * 10_000, {})
    assert "\n" not in str(fault) and len(str(fault)) < MOST_DETAIL + 60
    again = fault.again()
    assert str(again) == str(fault) and again is not fault
