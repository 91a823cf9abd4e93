"""With language servers an answer keeps to its schema as it does here, or it is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors.table import SENTENCES
from service.language.grammars import KEPT
from service.language.wire import Received, structured
from tests.language.conftest import same, served_by
from tests.language.stub_server import Behaviour, Stub
from tests.language.test_recorded import recorded
from tests.language.test_same_answers import say
from tests.loopback import wait_for
from tests.service.chats import chat
from tests.service.live import Live
from tests.vlm.conftest import write_checkpoint
from tests.vlm.test_vlm_grammar import BYTES, INVALID, obj
from vlm import GeneratedSequence, GenerationParams, Vlm, load_vlm
from vlm.grammar import compile_schema

SIDE = obj(side={"enum": ["left", "red", "many"]})
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SIDE}} for name in ("report", "remember")
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokens are bytes, so that they spell every text."""
    return write_checkpoint(tmp_path_factory.mktemp("schemas") / "tiny", byte_level=True)


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> Vlm:
    return load_vlm(checkpoint)


def formed(schema: Any) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema}
    return {"max_tokens": 64, "response_format": {"type": "json_schema", "json_schema": named}}


def content(body: dict[str, Any]) -> Any:
    return json.loads(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize(("schema", "fits"), BYTES, ids=[str(schema)[:40] for schema, _ in BYTES])
def test_an_answer_with_a_schema_is_the_same(here: Live, apart: Live, schema: Any, fits: Any) -> None:
    for more in ({}, {"temperature": 2, "seed": 5}):
        asked = {**formed(schema), **more}
        answer = say(apart, **asked)
        assert fits(content(answer)) and answer["choices"][0]["finish_reason"] == "stop"
        assert same(answer) == same(say(here, **asked))


def test_a_stream_with_a_schema_says_the_same(here: Live, apart: Live, stub: Stub) -> None:
    stub.behaviour = Behaviour(together=3)
    asked = {**formed(SIDE), "stream": True, "n": 2, "temperature": 2, "seed": 3}

    def pieces(served: Live) -> list[str]:
        response = served.client.post("/v1/chat/completions", json=chat(**asked))
        lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        whole = ["", ""]
        for choice in (choice for line in lines for choice in json.loads(line)["choices"]):
            whole[choice["index"]] += choice["delta"].get("content") or ""
        return whole

    assert pieces(apart) == pieces(here)
    assert all(json.loads(one)["side"] for one in pieces(apart))


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "report"}}], ids=str
)
def test_a_function_is_called_in_the_same_way(here: Live, apart: Live, choice: Any) -> None:
    asked = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 96, "temperature": 2, "seed": 2}

    def call(served: Live) -> tuple[str, str]:
        ((called,),) = (one["message"]["tool_calls"] for one in say(served, **asked)["choices"])
        return called["function"]["name"], called["function"]["arguments"]

    assert call(apart) == call(here)
    assert json.loads(call(apart)[1])["side"] in ("left", "red", "many")


def test_an_answer_that_is_cut_off_says_so(here: Live, apart: Live) -> None:
    asked = formed(obj(said={"type": "string", "minLength": 90})) | {"max_tokens": 7}
    answer = say(apart, **asked)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert same(answer) == same(say(here, **asked))


def test_what_is_refused_here_is_refused_in_the_same_words(here: Live, apart: Live, stub: Stub) -> None:
    for schema in INVALID:
        ours, theirs = (say(one, status=422, **formed(schema))["error"] for one in (here, apart))
        del ours["request_id"], theirs["request_id"]
        assert ours == theirs and theirs["code"] == "bad_schema"
    assert stub.answered == 0


def test_the_request_carries_the_grammar_and_none_without_a_schema(apart: Live, stub: Stub) -> None:
    say(apart, **formed(SIDE))
    say(apart)
    bound, free = [one for one in stub.requests if one.get("stream")]
    text = bound["structured_outputs"].pop("grammar")
    assert bound["structured_outputs"] == {} and "structured_outputs" not in free
    first, second = text.split("\n")
    assert first == "%llguidance {}" and second.startswith("start: %json ")
    sent = json.loads(second.removeprefix("start: %json "))
    assert sent.pop("x-guidance")["whitespace_flexible"] is False and sent == SIDE


def test_it_is_the_request_that_a_real_server_kept_to(whole: Vlm) -> None:
    params = GenerationParams(64, grammar=compile_schema(whole, KEPT))
    kept = recorded("grammar")
    assert kept["request"]["structured_outputs"] == structured(params)["structured_outputs"]
    row = GeneratedSequence(0, 12)
    answer = Received(row, params, 64, whole.text_config.vocab_size, frozenset(whole.eos_token_ids))
    for event in (json.loads(one[6:]) for one in kept["events"] if one != "data: [DONE]"):
        for step in answer.steps(event):
            if row.finish_reason is None:
                answer.append(step)
    assert (row.guided_text, row.finish_reason) == ('{"kept": [true, 1]}', "stop")


def test_probabilities_beside_a_schema_are_refused(here: Live, apart: Live, stub: Stub) -> None:
    asked = formed(SIDE) | {"logprobs": True, "top_logprobs": 2}
    assert say(here, **asked)["choices"][0]["logprobs"]["content"]
    refused(say(apart, status=422, **asked), "logprobs", "logprobs")
    assert stub.answered == 0


@pytest.mark.parametrize("grammars", ["refuses", "fails", "ignores"])
def test_a_server_that_keeps_no_grammar_answers_the_rest(
    checkpoint: Path, stub: Stub, grammars: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stub.behaviour = Behaviour(grammars=grammars)
    with served_by(checkpoint, stub) as served:
        refused(say(served, status=422, **formed(SIDE)), "response_format.json_schema.schema", "servers")
        assert say(served)["choices"]
        assert stub.answered == 1
    assert any("keeps no answer inside a schema" in one.getMessage() for one in caplog.records)


def test_only_a_server_that_keeps_grammars_gets_a_schema(checkpoint: Path, stub: Stub, other: Stub) -> None:
    other.behaviour = Behaviour(grammars="fails")
    with served_by(checkpoint, stub, other) as served:
        servers = served.state.engine.language._servers  # type: ignore[union-attr]
        wait_for(lambda: servers.up == 2)
        for seed in range(6):
            schema = obj(n={"const": seed})
            assert content(say(served, **formed(schema)))["n"] == seed
        assert (stub.answered, other.answered) == (6, 0)


def test_an_answer_that_leaves_its_schema_is_never_shown(
    apart: Live, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    """The server that was asked at the start kept to grammars, and does no longer."""
    stub.behaviour = Behaviour(grammars="ignores")
    body = say(apart, status=502, **formed(SIDE))
    assert body["error"]["code"] == "language_garbled"
    assert any("does not fit the schema" in one.getMessage() for one in caplog.records)


def test_an_answer_that_leaves_its_schema_is_written_by_another_server(
    checkpoint: Path, here: Live, stub: Stub, other: Stub
) -> None:
    with served_by(checkpoint, stub, other) as served:
        servers = served.state.engine.language._servers  # type: ignore[union-attr]
        wait_for(lambda: servers.up == 2)
        stub.behaviour = Behaviour(grammars="ignores")
        for schema in (SIDE, *(obj(n={"enum": [n, n + 30]}) for n in range(5))):
            assert same(say(served, **formed(schema))) == same(say(here, **formed(schema)))
        assert other.answered == 6


def refused(body: dict[str, Any], field: str, reason: str) -> None:
    sentence = SENTENCES["language_unsupported", reason].format(field=field)
    error = body["error"]
    assert (error["code"], error["param"], error["message"]) == ("language_unsupported", field, sentence)
