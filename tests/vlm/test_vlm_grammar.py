"""Answers that match a schema: always, whatever else is in the batch; what cannot be is refused before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.vlm.test_vlm_decoding import EVERYONE, NEEDLE, Request, alone, answers, finish, start
from vlm import GenerationParams, Vlm, VlmError, generate, guide
from vlm.grammar import compile_schema
from vlm.schema_bounds import MAX_SCHEMA_CHARS, MAX_SCHEMA_DEPTH

Schema = dict[str, Any]


def obj(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SIDE = obj(side={"enum": ["left", "red", "many"]})
BYTES: list[tuple[Schema, Callable[[Any], bool]]] = [
    (obj(at={"enum": ["left", "right", "\u00fcber"]}), lambda v: v["at"] in ("left", "right", "\u00fcber")),
    (obj(ok={"type": "boolean"}, n={"enum": [1, 25]}), lambda v: v["ok"] in (0, 1) and v["n"] in (1, 25)),
    (obj(n={"type": "integer", "minimum": 3, "maximum": 42}), lambda v: 3 <= v["n"] <= 42),
    (obj(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}), lambda v: len(v["code"]) == 6),
    (obj(words={"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3}),
     lambda v: 2 <= len(v["words"]) <= 3 and set(v["words"]) <= {"a", "b"}),
    ({"$defs": {"D": obj(x={"type": "null"})}, **obj(d={"$ref": "#/$defs/D"})},
     lambda v: v == {"d": {"x": None}}),
    ({"enum": ["left", 7]}, lambda v: v in ("left", 7)),
]  # fmt: skip


@pytest.fixture(scope="module")
def byte_vlm(load: Callable[..., Vlm]) -> Vlm:
    """A model whose tokens are bytes: it can spell every text."""
    return load(byte_level=True)


def guided(vlm: Vlm, schema: Schema, request: Request = NEEDLE, **params: Any) -> Request:
    params = {"max_new_tokens": 64, **params}
    return replace(request, params=GenerationParams(grammar=compile_schema(vlm, schema), **params))


def texts(vlm: Vlm, requests: Sequence[Request]) -> list[tuple[str | None, str | None]]:
    return [(row.guided_text, row.finish_reason) for row in finish(start(vlm, requests))]


@pytest.mark.parametrize(
    ("schema", "fits"), BYTES, ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_answers_match_their_schema(
    byte_vlm: Vlm, schema: Schema, fits: Callable[[Any], bool], temperature: float
) -> None:
    requests = [
        guided(byte_vlm, schema, replace(NEEDLE, seed=at), temperature=temperature, seed=at)
        for at in range(6)
    ]
    for text, reason in texts(byte_vlm, requests):
        assert reason == "stop" and text is not None
        assert fits(json.loads(text)), text


def test_without_a_schema_the_same_model_writes_no_json(byte_vlm: Vlm) -> None:
    (row,) = finish(start(byte_vlm, [replace(NEEDLE, params=GenerationParams(64))]))
    assert row.guided_text is None
    with pytest.raises(ValueError):
        json.loads(bytes(token % 256 for token in row.token_ids))


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_schemas_and_free_answers_share_a_batch(vlm: Vlm, byte_vlm: Vlm, kind: str) -> None:
    model = vlm if kind == "words" else byte_vlm
    free = EVERYONE if kind == "words" else [replace(NEEDLE, seed=at) for at in range(3)]
    bound = [
        guided(model, SIDE),
        guided(model, SIDE, temperature=2.0, seed=3),
        guided(
            model,
            obj(said={"type": "string", "maxLength": 12}),
            replace(NEEDLE, words=9),
            temperature=1.5,
            seed=1,
        ),
    ]
    expected = {id(one): texts_and_tokens(model, [one])[0] for one in [*free, *bound]}
    mixed = [free[0], bound[0], *free[1:3], bound[1], bound[2]]
    for requests in (mixed, mixed[::-1]):
        assert texts_and_tokens(model, requests) == [expected[id(one)] for one in requests]
    assert answers(model, [free[0]])[0] == alone(model, free[0])


def texts_and_tokens(vlm: Vlm, requests: Sequence[Request]) -> list[Any]:
    return [(row.guided_text, row.token_ids, row.finish_reason) for row in finish(start(vlm, requests))]


def test_a_grammar_that_is_ignored_would_be_noticed(byte_vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the mask, the answers do not fit."""
    monkeypatch.setattr(
        guide.TokenGuide, "next_token", lambda self, pick: pick(torch.ones(270, dtype=torch.bool))
    )
    row = finish(start(byte_vlm, [guided(byte_vlm, SIDE)]))[0]
    assert row.guided_text == "" and len(row.token_ids) == 64


def test_an_answer_that_is_cut_off_says_so(byte_vlm: Vlm, vlm: Vlm) -> None:
    long = obj(said={"type": "string", "minLength": 50})
    for model in (byte_vlm, vlm):
        text, reason = texts(model, [guided(model, long, max_new_tokens=5)])[0]
        assert reason == "length" and text is not None and text.startswith('{"sai')
        with pytest.raises(ValueError):
            json.loads(text)


WORDS: list[tuple[Schema, Callable[[Any], bool]]] = [
    (SIDE, lambda v: v["side"] in ("left", "red", "many")),
    (obj(side={"enum": ["Left", "Red cubes", "MANY"]}), lambda v: v["side"] in ("Left", "Red cubes", "MANY")),
    (obj(a={"enum": ["red", "red one", "left"]}, b={"const": "not its words"}),
     lambda v: v["a"] in ("red", "red one", "left") and v["b"] == "not its words"),
    (obj(a={"enum": ["is", "left", "?"]}), lambda v: v["a"] in ("is", "left", "?")),
    (obj(said={"type": "string"}), lambda v: isinstance(v["said"], str)),
    ({"type": "object"}, lambda v: list(v) == ["answer"]),
    ({}, lambda v: list(v) == ["answer"]),
    ({"type": "object", "properties": {"a": {"enum": ["left", "red"]}}}, lambda v: v["a"] in ("left", "red")),
    (obj(many={"type": "array", "items": {"enum": ["left", "red"]}, "minItems": 2, "maxItems": 2}),
     lambda v: len(v["many"]) == 2),
    (obj(a={"anyOf": [{"type": "null"}, {"enum": ["left", "red"]}]}),
     lambda v: v["a"] in (None, "left", "red")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "fits"), WORDS, ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else ""
)
def test_a_model_of_whole_words_fills_in_a_schema(
    vlm: Vlm, schema: Schema, fits: Callable[[Any], bool]
) -> None:
    seen = set()
    for seed in range(8):
        model = replace(vlm, eos_token_ids=frozenset(range(60, 96)))  # it ends soon
        request = guided(
            model, schema, replace(NEEDLE, seed=seed), temperature=3.0, seed=seed, max_new_tokens=200
        )
        ((text, reason),) = texts(model, [request])
        assert reason == "stop" and text is not None
        assert fits(json.loads(text)), text
        seen.add(text)
    assert len(seen) > 1 or schema in ({}, {"type": "object"})


def test_the_words_are_the_models_own_and_nothing_else_is_a_token(vlm: Vlm) -> None:
    (row,) = finish(start(vlm, [guided(vlm, obj(side={"enum": ["Left", "Red"]}, more={"const": "x y z"}))]))
    assert row.guided_text is not None and len(row.token_ids) == 1
    word = vlm.tokenizer.convert_ids_to_tokens(row.token_ids[0])
    assert json.loads(row.guided_text) == {"side": str(word).capitalize(), "more": "x y z"}


def test_yes_and_no_are_true_and_false(load: Callable[..., Vlm]) -> None:
    from vlm import load_vlm

    room = load_vlm("room-tiny")
    seen = set()
    for seed in range(6):
        params = GenerationParams(
            8, 5.0, seed=seed, grammar=compile_schema(room, obj(ok={"type": "boolean"}))
        )
        text = one_answer(room, params)
        seen.add(text)
    assert seen == {'{"ok": true}', '{"ok": false}'}


def one_answer(vlm: Vlm, params: GenerationParams) -> str:
    from vlm import prompt_ids

    with torch.inference_mode():
        return generate(vlm, prompt_ids(vlm, "is there a chair", []), torch.zeros(0, 1, 192), params).text


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (obj(a={"enum": ["armchair", "left"]}), "words of this model"),
        (obj(a={"enum": ["left", 17]}), "words of this model"),
        (obj(a={"type": "string", "pattern": "^[a-z]+$"}), "pattern"),
        (obj(a={"type": "string", "format": "date"}), "format"),
    ],
)
def test_what_a_model_has_no_words_for_is_refused(vlm: Vlm, schema: Schema, reason: str) -> None:
    with pytest.raises(VlmError, match=reason) as caught:
        compile_schema(vlm, schema)
    assert (caught.value.code, caught.value.field) == ("invalid_schema", "schema")


@pytest.mark.parametrize("required", [[[]], [{}], [1]], ids=str)
def test_required_that_is_no_list_of_names_is_refused(vlm: Vlm, required: list[object]) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["left"]}}, "required": required}
    with pytest.raises(VlmError) as caught:
        compile_schema(vlm, schema)
    assert caught.value.code == "invalid_schema"


def test_what_a_model_turns_out_to_have_no_words_for_is_an_error(vlm: Vlm) -> None:
    request = guided(vlm, obj(n={"type": "integer"}))
    assert texts(vlm, [request, guided(vlm, SIDE)])[0][1] == "unspellable"
    with pytest.raises(VlmError, match="no words for") as caught:
        generate(vlm, request.prompt(vlm), request.features(), request.params)
    assert caught.value.code == "invalid_schema"


DEEP: Schema = {"type": "string"}
for _ in range(MAX_SCHEMA_DEPTH):
    DEEP = {"type": "array", "items": DEEP}
INVALID: list[Schema] = [
    {"type": "objekt"},
    {"type": 7},
    {"enum": []},
    {"enum": "left"},
    {"$ref": "#/$defs/nowhere"},
    {"$ref": "http://127.0.0.1:1/schema.json"},
    {"$ref": "file:///etc/passwd"},
    {"type": "string", "pattern": "(["},
    {"type": "array", "uniqueItems": True},
    {"not": {"type": "string"}},
    {"if": {}, "then": {}},
    {"type": "object", "properties": []},
    {"type": "object", "required": "a"},
    {"minimum": 3, "maximum": 2, "type": "integer"},
    DEEP,
    {"enum": ["x" * MAX_SCHEMA_CHARS]},
]


@pytest.mark.parametrize("schema", INVALID, ids=lambda schema: json.dumps(schema)[:40])
@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_a_schema_that_cannot_be_used_is_refused(vlm: Vlm, byte_vlm: Vlm, schema: Schema, kind: str) -> None:
    with pytest.raises(VlmError) as caught:
        compile_schema(vlm if kind == "words" else byte_vlm, schema)
    assert caught.value.code == "invalid_schema"
    assert str(caught.value).startswith("the schema cannot be used: ") and len(str(caught.value)) < 200
    assert "passwd" not in str(caught.value) and "127.0.0.1" not in str(caught.value)
