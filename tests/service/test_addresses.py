"""HEAD is GET without a body, a slash at the end changes nothing, and the document says how keys are sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.chats import chat
from tests.service.conftest import Question
from tests.service.live import live

GETS = ("/", "/livez", "/readyz", "/methods", "/metrics", "/openapi.json", "/docs", "/v1/models")


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    for name in ("content-type",) if path == "/metrics" else ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


def test_head_over_a_socket_leaves_the_connection_usable(checkpoint: Path) -> None:
    with live(checkpoint) as served:
        for path, status in (("/", 200), ("/openapi.json", 200), ("/vqa", 405), ("/nothing", 404)) * 2:
            assert served.client.head(path).status_code == status


def test_head_of_what_only_takes_bodies_is_refused(client: TestClient) -> None:
    response = client.head("/vqa")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", [*GETS, "/docs/swagger-ui.css", "/v1/models/room-tiny"])
def test_another_method_is_refused_with_those_that_are_taken(client: TestClient, path: str) -> None:
    response = client.delete(path)
    error = response.json()["error"]
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert error["choices"] == ["GET", "HEAD"] and "takes GET and HEAD" in error["message"]
    for method in error["choices"]:
        assert client.request(method, path).status_code in (200, 404)


@pytest.mark.parametrize("path", [path for path in GETS if path != "/"])
def test_a_slash_at_the_end_changes_nothing(client: TestClient, path: str) -> None:
    response = client.get(f"{path}/")
    assert response.status_code == 200 and not response.history


def test_questions_may_be_sent_with_a_slash(client: TestClient, question: Question, form: str) -> None:
    assert question.post(client, form, "/vqa/").status_code == 200
    assert question.but(specs=[{}]).post(client, "json", "/vqa/compare/").status_code == 200
    assert client.post("/v1/chat/completions/", json=chat()).status_code == 200
    name = client.get("/v1/models").json()["data"][0]["id"]
    assert client.get(f"/v1/models/{name}/").json()["id"] == name
    wrong = client.post("/v1/chat/completions/", json={}).json()["error"]
    assert "param" in wrong, "errors have the shape of the address"


@pytest.mark.parametrize("path", ["/vqa//", "/vqa/x/", "/nothing/"])
def test_other_spellings_are_not_there(client: TestClient, path: str) -> None:
    assert client.post(path).status_code == 404


def operations(document: dict[str, Any]) -> dict[str, list[Any] | None]:
    return {
        f"{method.upper()} {path}": operation.get("security")
        for path, held in document["paths"].items()
        for method, operation in held.items()
    }


def test_the_document_says_how_a_key_is_sent() -> None:
    document = create_app(Settings.model_validate({"api_keys": "a=secret", "depth_model": "none"})).openapi()
    schemes = document["components"]["securitySchemes"]
    assert {one["type"] for one in schemes.values()} == {"http", "apiKey"}
    wanted = [{name: []} for name in schemes]
    found = operations(document)
    assert found["POST /vqa"] == found["GET /v1/models"] == found["POST /depth/inspect"] == wanted
    assert found["GET /livez"] is found["GET /"] is found["GET /methods"] is None


def test_without_keys_none_is_needed() -> None:
    found = operations(create_app(Settings(depth_model="none")).openapi())
    assert {} in (found["POST /vqa"] or [])


def test_what_the_document_says_of_keys_is_so(checkpoint: Path) -> None:
    with live(checkpoint, api_keys="a=secret") as served:
        for operation, security in operations(served.client.get("/openapi.json").json()).items():
            method, path = operation.split()
            status = served.client.request(method, path.replace("{name}", "x")).status_code
            assert (status == 401) == (security is not None), operation
