"""Every knob has a ceiling, at every address that has the knob; tests are made from the models themselves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, create_model
from starlette.testclient import TestClient

from service.api.chat.request import DEPTH_FIELDS, MAX_STOP_CHARS, MAX_STOPS
from service.api.compare import CompareFields
from service.request.frame_fields import PosedFields
from service.request.schemas import MERGE_FIELDS, AskFields, InspectFields, MergeFields, VqaFields
from tests.service import chats
from tests.service.chats import depth, image, text, user
from tests.service.conftest import running
from tests.service.files import DEPTH, IMAGE
from tests.service.test_refusals import LEAKS
from tests.vlm.conftest import WORDS

MODELS = (MergeFields, AskFields, VqaFields, CompareFields, InspectFields)
ELSEWHERE = {
    ("question", "maxLength"): "settings.max_question_chars",
    ("specs", "maxItems"): "settings.max_compared",
    ("schedule", "minimum"): "the plan: -1",
    ("schedule", "maximum"): "the plan: 1",
    ("alpha", "minimum"): "the plan: 0",
    ("alpha", "maximum"): "the plan: 1",
    ("alpha[]", "minimum"): "the plan: 0",
    ("alpha[]", "maximum"): "the plan: 1",
    ("depth_invalid[]", "minimum"): "none: any number may mark a hole, and costs the same",
    ("depth_invalid[]", "maximum"): "none: any number may mark a hole, and costs the same",
}
"""Bounds that do not stand in the schema, and where they are; every one of them is tried below."""
Schema = dict[str, Any]


def missing(model: type[BaseModel]) -> set[tuple[str, str]]:
    """Return the bounds that a model does not state."""
    whole = model.model_json_schema()
    return {
        one for name, schema in whole["properties"].items() for one in _missing(name, schema, whole)
    } - ELSEWHERE.keys()


def _missing(name: str, schema: Schema, whole: Schema) -> Iterator[tuple[str, str]]:
    for one in schema.get("anyOf", []):
        yield from _missing(name, one, whole)
    if "$ref" in schema:
        inner = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        for field, own in inner["properties"].items():
            yield from _missing(field, own, whole)
    match schema.get("type"):
        case "integer" | "number":
            for bound in ("minimum", "maximum"):
                if not {bound, f"exclusive{bound.title()}"} & schema.keys():
                    yield name, bound
        case "string" if not {"enum", "const", "maxLength"} & schema.keys():
            yield name, "maxLength"
        case "array":
            if "maxItems" not in schema:
                yield name, "maxItems"
            yield from _missing(f"{name}[]", schema["items"], whole)
        case "object":
            if "maxProperties" not in schema or "maxLength" not in schema.get("propertyNames", {}):
                yield name, "maxProperties"
            if schema["additionalProperties"] is not True:  # values of any type, which their reader checks
                yield from _missing(f"{name}[]", schema["additionalProperties"], whole)


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_bound(model: type[BaseModel]) -> None:
    assert missing(model) == set()


@pytest.mark.parametrize(
    "kind", [int, float | None, str, list[bool], dict[str, bool], list[int], int | None], ids=str
)
def test_a_new_field_without_a_bound_is_found(kind: Any) -> None:
    new = create_model("New", __base__=MergeFields, new=(kind, ...))
    assert any(name.startswith("new") for name, _ in missing(new))
    bounded = create_model("New", __base__=MergeFields, new=(int, Field(ge=0, le=9)))
    assert missing(bounded) == set()


@dataclass(frozen=True)
class Knob:
    """One field and values for it: those at its bounds, and those that nobody may ask for."""

    name: str
    fine: tuple[Any, ...]
    wrong: tuple[Any, ...]


def knobs() -> Iterator[Knob]:
    for name, schema in VqaFields.model_json_schema()["properties"].items():
        kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
        fine = [value for kind in kinds for value in _fine(kind)]
        wrong = [value for kind in kinds for value in _wrong(kind)] + [{"a": {"b": 1}}, [[1]]]
        types = {kind["type"] for kind in kinds}
        strangers = {
            "boolean": [True],
            "string": ["8", ""],
            "number": [0.5],
            "integer": [7],
            "array": [[], [1]],
        }
        accepts = types | ({"integer"} if "number" in types else set())
        for kind, values in strangers.items():
            if kind not in accepts and not (kind == "number" and "number" in types):
                wrong += values
        yield Knob(name, tuple(fine), tuple(wrong))


def _fine(kind: Schema) -> list[Any]:
    least, most = kind.get("minimum"), kind.get("maximum")
    if "exclusiveMaximum" in kind:
        most = kind["exclusiveMaximum"] - 1
    if kind["type"] in ("integer", "number"):
        return [value for value in (least, most) if value is not None]
    return list(kind.get("enum", []))


def _wrong(kind: Schema) -> list[Any]:
    match kind["type"]:
        case "integer" | "number":
            step = 1 if kind["type"] == "integer" else 1e-9
            over = [kind["maximum"] + max(step, kind["maximum"] * 1e-9)] if "maximum" in kind else []
            under = [kind["minimum"] - step] if "minimum" in kind else []
            ends = [kind[end] for end in ("exclusiveMinimum", "exclusiveMaximum") if end in kind]
            over = [int(value) for value in over] if kind["type"] == "integer" else over
            return [*over, *under, *ends, 10**30, -(10**30), 10**400, 1e308, -1e308]
        case "string":
            return ["x" * (kind.get("maxLength", 2000) + 1), "x" * 100_000]
        case "array":
            return [[0] * (kind["maxItems"] + 1), [0] * 10_000]
        case "object":
            many = {f"a{number}": 1 for number in range(kind["maxProperties"] + 1)}
            return [many, {"x" * 33: 1}, {"a": "x" * 65}, {"a": 2**53 + 1}, {"a": 1e10}, {"a": True}]
    return []


KNOBS = {knob.name: knob for knob in knobs()}
# What fits in so few tokens depends on the model, and not on the bounds.
KNOBS["max_visual_tokens"] = Knob("max_visual_tokens", (1_000_000,), KNOBS["max_visual_tokens"].wrong)
KNOBS["question"] = Knob(
    "question",
    ("many " * 400,),
    ("x" * 2001, "x" * 100_001, 7, True, 0.5, [], ["x"], {"a": 1}, "", "\ud800"),
)
for name, over in (("schedule", (1.001, -1.001)), ("alpha", (1.001, -0.001, [2.0], [1e308]))):
    KNOBS[name] = Knob(name, (0.5,), (*KNOBS[name].wrong, *over, 1e308))
KNOBS["depth_invalid"] = Knob(
    "depth_invalid", ([1e308], [-1e308], [0.5] * 16), (*KNOBS["depth_invalid"].wrong, ["x"], [True])
)
MERGING = {"method": "tosa", "keep_ratio": 0.5}
IN_CHAT = {ours: theirs for theirs, ours in DEPTH_FIELDS.items()}


@pytest.fixture(scope="module")
def client(checkpoint: Path) -> Iterator[TestClient]:
    with running(checkpoint, depth_model="none", max_queue=16) as client:
        yield client


def chat(*messages: Any, **changes: Any) -> dict[str, Any]:
    return chats.chat(*messages or [user(text(), image(), depth())], **changes)


def body_with(path: str, name: str, value: Any) -> dict[str, Any] | None:
    """Return a body of this address that is right but for one field; None where it has no such field."""
    files = {"images": [base64.b64encode(IMAGE).decode()], "depths": [base64.b64encode(DEPTH).decode()]}
    if name in PosedFields.model_fields and path != "/vqa":
        return None
    merge = MERGING | ({"keep_ratio": None} if name in ("r", "r_hw", "layers") else {})
    few = {} if name == "max_new_tokens" else {"max_new_tokens": 1}
    if path == "/vqa":
        return {"question": WORDS[2], **few, **files, **merge, name: value}
    if path == "/vqa/compare":
        if name == "stream":
            return None
        spec, shared = ({name: value}, {}) if name in MERGE_FIELDS else ({}, {name: value})
        return {"question": WORDS[2], **few, **files, "specs": [merge | spec], **shared}
    if name == "question":
        return chat(user(image(), {"type": "text", "text": value}), max_tokens=1)
    if name in MERGE_FIELDS:
        return chat(merge=merge | {name: value}, max_tokens=1)
    if name in IN_CHAT:
        return chat(depth={IN_CHAT[name]: value}, max_tokens=1)
    if name == "max_new_tokens":
        return chat(max_tokens=value)
    return chat(max_tokens=1, **{name: value})


PATHS = ("/vqa", "/vqa/compare", "/v1/chat/completions")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", KNOBS)
def test_beyond_its_bounds_nothing_is_accepted(client: TestClient, path: str, name: str) -> None:
    for value in KNOBS[name].wrong:
        if path.startswith("/v1/") and name == "question" and value in ("x" * 2001, ""):
            continue  # a conversation may be longer than a question, and its turns may be empty
        if path.startswith("/v1/") and name == "top_p" and value == 0:
            continue  # OpenAI has a top_p of 0
        body = body_with(path, name, value)
        if body is None:
            continue
        response = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        shown = repr(value)[:80]
        expected = (400, 422) if name in ("question", "cache", "confidence", "stream") else (422,)
        assert response.status_code in expected, (shown, response.text[:300])
        error = response.json()["error"]
        assert len(response.content) < 4096 and not LEAKS.search(response.text), shown
        about = error.get("field") or error.get("param")
        assert about and (about.split(".")[-1] == _shown(path, name) or name == "question"), (shown, error)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", KNOBS)
def test_at_its_bounds_a_field_is_not_what_is_wrong(client: TestClient, path: str, name: str) -> None:
    """The twin: the bounds are where they are said to be. What the model cannot do, the plan says."""
    for value in KNOBS[name].fine:
        body = body_with(path, name, value)
        if body is None:
            continue
        response = client.post(path, json=body)
        plan_says = (
            "keep_ratio_out_of_range",
            "bad_merge_spec",
            "estimate_off",
            "depth_implausible",
            "bad_target",
        )
        if response.status_code != 200:
            assert response.json()["error"]["code"] in plan_says, (value, response.text[:300])
            assert name in (*MERGE_FIELDS, "depth", "depth_scale"), (value, response.text[:300])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1", "1.", ".5"]
)
def test_numbers_that_are_none(client: TestClient, path: str, number: str) -> None:
    for name in ("temperature", "seed", "timeout_s", "max_new_tokens", "keep_ratio"):
        body = json.dumps(body_with(path, name, "@")).replace('"@"', number)
        response = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), (name, response.text[:300])


@pytest.mark.parametrize("number", ["1e999", "nan", "inf", "0x10", "\u0661", " ", "9" * 5000, "true"])
def test_numbers_that_are_none_in_a_form(client: TestClient, number: str) -> None:
    for name in ("temperature", "seed", "timeout_s", "max_new_tokens", "keep_ratio", "r", "layers"):
        parts: list[Any] = [("question", (None, "how")), (name, (None, number)), ("image", ("a", IMAGE))]
        response = client.post("/vqa", files=parts)
        assert response.status_code == 422, (name, response.text[:300])


def test_bounds_of_a_chat(client: TestClient) -> None:
    for stop in (["x"] * (MAX_STOPS + 1), "x" * (MAX_STOP_CHARS + 1), [""], [7], {"a": "b"}, "\ud800"):
        assert client.post(PATHS[2], content=json.dumps(chat(stop=stop))).status_code in (415, 422)
    assert client.post(PATHS[2], json=chat(stop=["x" * MAX_STOP_CHARS] * MAX_STOPS)).status_code == 200
    many = chat(user(text(), *[image()] * 4))
    assert client.post(PATHS[2], json=many).json()["error"]["code"] == "image_count"
    assert client.post(PATHS[2], json=chat(model="x" * 100_000)).status_code == 404


@pytest.mark.parametrize("number", [0, 13, 1000])
def test_bounds_of_a_comparison(client: TestClient, number: int) -> None:
    body = body_with("/vqa/compare", "question", "how")
    assert body is not None
    response = client.post("/vqa/compare", json=body | {"specs": [MERGING] * number})
    assert response.json()["error"]["code"] == "compare_count"
    assert client.post("/vqa/compare", json=body | {"specs": [MERGING] * 12}).status_code == 200


def _shown(path: str, name: str) -> str:
    if path.startswith("/v1/"):
        return {**IN_CHAT, "max_new_tokens": "max_tokens", "depth": "depth"}.get(name, name)
    return name
