"""The generated documentation: every field says what it is and shows a value, and every example works."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion
from starlette.testclient import TestClient

from service.api import openapi_examples
from service.api.body import parse_question
from service.api.chat.request import parse_chat
from service.api.chat.schemas import ChatCompletion as OurCompletion
from service.api.chat.schemas import ChatCompletionChunk, ChatErrorResponse, ServedModels
from service.api.openapi import CHAT_BODY, VQA_BODY, inlined
from service.api.responses import CompareResponse, Inspected, OverlayResponse
from service.api.rooms import RoomResponse
from service.pipeline.response_models import VqaResponse
from service.request.frame_fields import PosedFields
from service.request.schemas import TARGETS, VqaFields, VqaRequest
from service.settings import Settings
from tests.service.conftest import Question
from tests.service.test_chat_events import read

PATHS = {
    ("post", "/vqa"),
    ("post", "/vqa/compare"),
    ("post", "/vqa/overlay"),
    ("post", "/rooms"),
    ("post", "/v1/chat/completions"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("post", "/depth/inspect"),
}
Schema = dict[str, Any]


@pytest.fixture(scope="module")
def document(client: TestClient) -> Schema:
    return client.get("/openapi.json").json()


def fields(schema: Any, document: Schema, at: str) -> Iterator[tuple[str, Schema]]:
    """Walk a schema and yield every field, however deep, with its address."""
    if isinstance(schema, list):
        for one in schema:
            yield from fields(one, document, at)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from fields(
                document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document, at
            )
        for name, field in schema.get("properties", {}).items():
            yield f"{at}.{name}", field
            yield from fields(field, document, f"{at}.{name}")
        for inner in ("items", "anyOf", "oneOf", "allOf"):
            yield from fields(schema.get(inner), document, at)


def is_shown(field: Schema, media: str) -> bool:
    """Return whether a field shows a value; a form only says it, or pages would fill it in and send it."""
    if media != "multipart/form-data" or "examples" in field:
        return "examples" in field
    is_file = field.get("items", {}).get("format") == "binary"
    is_closed = "enum" in field or field["type"] == "boolean"
    return is_file or is_closed or "For example" in field["description"]


def unsaid(document: Schema, paths: set[tuple[str, str]]) -> list[str]:
    """List the fields of these addresses without a description, and those with neither example nor fields."""
    found = []
    for verb, path in sorted(paths):
        operation = document["paths"][path][verb]
        bodies = {"request": operation.get("requestBody"), **operation["responses"]}
        for kind, body in bodies.items():
            for media, held in (body or {}).get("content", {}).items():
                for at, field in fields(held["schema"], document, f"{path} {kind} {media}"):
                    has_fields = any(fields(field, document, at))
                    if not field.get("description") or not (has_fields or is_shown(field, media)):
                        found.append(at)
        for parameter in operation.get("parameters", []):
            if not {"description", "examples"} <= {*parameter, *parameter["schema"]}:
                found.append(f"{path} {parameter['name']}")
    return found


def test_every_field_is_described_and_shown(document: Schema) -> None:
    assert unsaid(document, PATHS) == []


def test_a_field_that_says_nothing_is_found(document: Schema) -> None:
    broken = json.loads(json.dumps(document))
    schemas = broken["components"]["schemas"]
    del schemas["Usage"]["properties"]["prompt_tokens"]["examples"]
    del schemas["VqaResponse"]["properties"]["usage"]["description"]
    found = unsaid(broken, PATHS)
    assert "/vqa 200 application/json.usage" in found
    assert "/vqa 200 application/json.usage.prompt_tokens" in found


def test_no_reference_leads_nowhere(document: Schema) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= known
    assert set(_references(CHAT_BODY)) | set(_references(VQA_BODY)) == set()


def _references(node: Any) -> Iterator[str]:
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _references(one)
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]


def test_every_field_of_a_request_is_there() -> None:
    content = VQA_BODY["requestBody"]["content"]
    for media, files in (
        ("application/json", {"images", "depths"}),
        ("multipart/form-data", {"image", "depth"}),
    ):
        assert set(content[media]["schema"]["properties"]) == files | set(VqaFields.model_fields)
    chat = CHAT_BODY["requestBody"]["content"]["application/json"]["schema"]["properties"]
    inside = {**chat, **chat["merge"]["properties"]}
    depth = {f"depth_{name}" for name in chat["depth"]["properties"]} - {"depth_source"}
    # In messages, as max_completion_tokens, as logprobs, or of an episode.
    outside = {"question", "max_new_tokens", "confidence", *PosedFields.model_fields}
    assert inside.keys() | depth | outside >= VqaFields.model_fields.keys()


@pytest.mark.parametrize("name", sorted(VqaFields.model_fields))
def test_examples_of_fields_are_taken(name: str) -> None:
    for example in inlined(VqaFields)["properties"][name]["examples"]:
        files = {"images": [openapi_examples.IMAGE], "depths": [openapi_examples.DEPTH]}
        beside = {"method": "auto"} if name in TARGETS else {}
        body = json.dumps({"question": "x", **files, **beside, name: example}).encode()
        sent = parse_question(b"application/json", b"", body, Settings())
        assert getattr(sent.fields, name) == example


def test_examples_of_fields_of_a_chat_are_taken() -> None:
    good = openapi_examples.CHAT["depth"]["value"]
    schema = CHAT_BODY["requestBody"]["content"]["application/json"]["schema"]["properties"]
    for name, field in schema.items():
        for example in field.get("examples", []) if name != "episode" else ():  # which brings the images
            assert isinstance(
                parse_chat(json.dumps({**good, name: example}).encode(), Settings()).vqa_request, VqaRequest
            )
        for inner, held in field.get("properties", {}).items():
            beside = {"method": "auto"} if inner in TARGETS else {}
            for example in held["examples"]:
                parse_chat(json.dumps({**good, name: {**beside, inner: example}}).encode(), Settings())


ANSWERS: dict[str, tuple[openapi_examples.Examples, type[Any]]] = {
    "/vqa": (openapi_examples.VQA, VqaResponse),
    "/vqa/compare": (openapi_examples.COMPARE, CompareResponse),
    "/vqa/overlay": (openapi_examples.OVERLAY, OverlayResponse),
    "/rooms": (openapi_examples.ROOM, RoomResponse),
    "/depth/inspect": (openapi_examples.INSPECT, Inspected),
    "/v1/chat/completions": (openapi_examples.CHAT, OurCompletion),
}


@pytest.mark.parametrize("path", ANSWERS)
def test_examples_of_requests_are_answered(client: TestClient, document: Schema, path: str) -> None:
    examples, shape = ANSWERS[path]
    shown = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert shown == examples
    for example in shown.values():
        response = client.post(path, json=example["value"])
        assert response.status_code == 200, response.text
        if not example["value"].get("stream"):
            shape.model_validate_json(response.content, strict=True)


@pytest.mark.parametrize("path", ["/vqa", "/vqa/compare", "/vqa/overlay", "/depth/inspect"])
def test_the_same_examples_are_answered_as_forms(client: TestClient, path: str) -> None:
    for example in ANSWERS[path][0].values():
        given = dict(example["value"])
        images, depths = (tuple(map(base64.b64decode, given.pop(name, ()))) for name in ("images", "depths"))
        texts = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()
        }
        response = Question(images, depths, texts).post(client, "multipart", path)
        assert response.status_code == 200, response.text


def test_streams_are_what_is_documented(client: TestClient) -> None:
    answer = client.post("/vqa", json=openapi_examples.VQA["stream"]["value"])
    *pieces, (last, data) = read(answer.content)
    assert {name for name, _ in pieces} <= {"text"} and last == "answer"
    VqaResponse.model_validate_json(data, strict=True)
    chunks = list(
        read(client.post("/v1/chat/completions", json=openapi_examples.CHAT["stream"]["value"]).content)
    )
    assert chunks.pop() == (None, "[DONE]")
    for _, chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk, strict=True)


def test_models_and_errors_are_what_is_documented(client: TestClient) -> None:
    ServedModels.model_validate_json(client.get("/v1/models").content, strict=True)
    for response in (client.get("/v1/models/gpt-4o"), client.post("/v1/chat/completions", json={})):
        ChatErrorResponse.model_validate_json(response.content, strict=True)


def test_our_shapes_have_what_theirs_have() -> None:
    assert OurCompletion.model_fields.keys() >= {
        name for name, field in ChatCompletion.model_fields.items() if field.is_required()
    }
    assert ServedModels.model_fields.keys() == {"object", "data"}
    assert {name for name, field in Model.model_fields.items() if field.is_required()} == {
        "id",
        "object",
        "created",
        "owned_by",
    }


@pytest.mark.parametrize("path", ["/vqa", "/vqa/compare", "/vqa/overlay", "/depth/inspect"])
def test_a_form_holds_what_a_page_can_show(document: Schema, path: str) -> None:
    """One kind of input for each field, files as files, and nothing filled in that goes against another."""
    content = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
    schema = content["schema"]
    for name, field in schema["properties"].items():
        assert not {"anyOf", "oneOf"} & field.keys(), name
        kinds = {"string", "integer", "number", "boolean", "object"} if name != "specs" else {"array"}
        assert field["type"] in kinds or field["items"] == {"type": "string", "format": "binary"}, name
        filled_in = [field[key] for key in ("example", "examples", "default") if key in field]
        if name not in schema["required"] and "default" not in field:
            assert filled_in in ([], [[{}]]), name
    assert content.get("encoding", {}).keys() <= schema["properties"].keys()


@pytest.mark.parametrize(("path", "file"), [("/vqa", "image"), ("/vqa/compare", "image")])
def test_a_form_as_it_is_filled_in_is_answered(
    client: TestClient, document: Schema, path: str, file: str
) -> None:
    schema = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    given = {
        name: field["examples"][0] if "examples" in field else field["default"]
        for name, field in schema["properties"].items()
        if "examples" in field or "default" in field
    }
    assert "question" in given and file in schema["required"]
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    response = Question(depths=(), fields=texts).post(client, "multipart", path)
    assert response.status_code == 200, response.text
