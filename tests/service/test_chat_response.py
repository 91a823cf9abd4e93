"""What clients of OpenAI's API get: completions, chunks, errors, models. Their own types read all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from starlette.testclient import TestClient

from service.api.chat.response import ChatStream, completion, model, models
from service.api.chat.schemas import ChatErrorResponse, Extras
from service.api.errors import PARAMS, error_body
from service.api.responses import ErrorResponse
from service.errors import ServiceError
from service.errors.table import CODES
from service.pipeline.response_models import VqaResponse
from service.request.schemas import VqaFields
from tests.service.answers import ANSWER, BODY, answered, sent
from vlm import load_vlm

EXTRAS = tuple(Extras.model_fields)
STREAM = ChatStream("abc", ANSWER.model, 1_700_000_000, include_usage=True)


def read(kind: type[BaseModel], body: dict[str, Any]) -> Any:
    """Read a body as the official client does, but believing nothing."""
    return kind.model_validate(body, strict=True)


def test_the_made_up_answer_is_one() -> None:
    assert sent(ANSWER) == BODY


@pytest.mark.parametrize("why", ["stop", "length"])
def test_completion(why: str) -> None:
    body = sent(completion(answered(finish_reason=why), 1_700_000_000))
    reply = read(ChatCompletion, body)
    assert (reply.id, reply.object, reply.created, reply.model) == (
        "chatcmpl-abc",
        "chat.completion",
        1_700_000_000,
        "tiny",
    )
    assert reply.system_fingerprint == ANSWER.model.revision
    (choice,) = reply.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "2 cubes")
    assert choice.finish_reason == why
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (20, 3, 23)
    assert {name: body[name] for name in EXTRAS if name in body} == {
        name: BODY[name] for name in EXTRAS if name in BODY
    }


def test_nothing_of_an_answer_is_lost() -> None:
    elsewhere = {"answer", "model", "usage", "finish_reason", "confidence"}  # logprobs say how sure it is
    assert set(VqaResponse.model_fields) == {*EXTRAS, *elsewhere}


def test_chunks_of_a_stream() -> None:
    chunks = [
        STREAM.start(),
        STREAM.text("2 "),
        STREAM.text("cubes"),
        STREAM.end("stop"),
        STREAM.usage(ANSWER),
    ]
    chunks = [sent(chunk) for chunk in chunks]
    reply = [read(ChatCompletionChunk, chunk) for chunk in chunks]
    assert {(one.id, one.object, one.created, one.model) for one in reply} == {
        ("chatcmpl-abc", "chat.completion.chunk", 1_700_000_000, "tiny")
    }
    assert [one.choices[0].delta.role for one in reply[:-1]] == ["assistant", None, None, None]
    assert "".join(one.choices[0].delta.content or "" for one in reply[:-1]) == ANSWER.answer
    assert [one.choices[0].finish_reason for one in reply[:-1]] == [None, None, None, "stop"]
    assert reply[-1].choices == [] and reply[-1].usage.total_tokens == 23
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {name: chunks[-1][name] for name in EXTRAS if name in chunks[-1]} == {
        name: BODY[name] for name in EXTRAS if name in BODY
    }


def test_usage_is_only_there_if_wanted() -> None:
    silent = ChatStream("abc", ANSWER.model, 0, include_usage=False)
    assert all(
        "usage" not in sent(chunk) for chunk in (silent.start(), silent.text("x"), silent.end("length"))
    )


def test_models(checkpoint: Path) -> None:
    vlm = load_vlm(str(checkpoint))
    listed = sent(models(vlm, 1_700_000_000))
    assert listed["object"] == "list" and listed["data"] == [sent(model(vlm, 1_700_000_000))]
    (one,) = (read(Model, body) for body in listed["data"])
    assert (one.id, one.object, one.created, one.owned_by) == ("tiny", "model", 1_700_000_000, "tosa-vqa")
    assert (listed["data"][0]["revision"], listed["data"][0]["max_model_len"]) == (
        vlm.revision,
        vlm.max_tokens,
    )
    assert str(checkpoint) not in str(listed)


TYPES = {401: "authentication_error", 429: "rate_limit_error", 400: "invalid_request_error"}


@pytest.mark.parametrize("code", list(CODES))
def test_errors_have_the_shape_of_their_address(code: str) -> None:
    field = "specs" if code == "unknown_field" else "keep_ratio"
    refusal = ServiceError(code, field=field, choices=("a", "b"), limit=2)
    ours, theirs = (error_body(refusal, "abc", path)["error"] for path in ("/vqa", "/v1/chat/completions"))
    assert ours == refusal.body("abc")["error"]
    status = CODES[code].status
    assert theirs == {
        "message": ours["message"],
        "type": "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error"),
        "param": PARAMS.get(field, field),
        "code": code,
        "request_id": "abc",
        "choices": ["a", "b"],
        "limit": 2,
    }


@pytest.mark.parametrize(("path", "shape"), [("/vqa", ErrorResponse), ("/v1/models", ChatErrorResponse)])
def test_unexpected_errors_have_it_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, shape: type[BaseModel]
) -> None:
    for module in ("service.api.receiving", "service.api.chat.routes"):
        monkeypatch.setattr(f"{module}.service_state", lambda _: 1 // 0)
    response = client.post(path, json={}) if path == "/vqa" else client.get(path)
    assert response.status_code == 500
    error = shape.model_validate_json(response.content, strict=True).model_dump()["error"]
    assert (error["code"], error["request_id"]) == ("internal", response.headers["x-request-id"])


def test_errors_name_the_field_where_a_client_wrote_it() -> None:
    def param(field: str | None) -> Any:
        return error_body(ServiceError("bad_request", field=field), "abc", "/v1/x")["error"]["param"]

    assert (param(None), param("seed"), param("messages[0].content")) == (None, "seed", "messages[0].content")
    assert (param("image"), param("question"), param("depth_scale")) == (
        "messages",
        "messages",
        "depth.scale",
    )
    unknown = error_body(ServiceError("unknown_field", field="keep_ratio"), "abc", "/v1/x")["error"]
    assert unknown["param"] == "keep_ratio"  # it stood where it does not belong
    assert PARAMS.keys() - {"image"} <= VqaFields.model_fields.keys()
