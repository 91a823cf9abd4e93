"""Pages of other origins: refused before anything is read, unless the settings name them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from service.settings import Settings
from tests.service.conftest import Question, running
from tests.service.files import IMAGE
from tests.service.test_refusals import check

PAGE, OTHER = "https://demo.example", "https://evil.example"
POSTS = ("/vqa", "/vqa/compare", "/vqa/overlay", "/rooms", "/depth/inspect", "/v1/chat/completions")
ASKED = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


@pytest.fixture(scope="module")
def opened(checkpoint: Path) -> Iterator[TestClient]:
    with running(checkpoint, depth_model="none", cors_origins=f"{PAGE}, http://localhost:5173") as client:
        yield client


def ask(client: TestClient, **headers: str) -> Any:
    """Send what a form of any page can send without asking before."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    files = {"question": (None, "how many cubes ?"), "image": ("a.png", IMAGE, "image/png")}
    return client.post("/vqa", files=files, headers=named)


FOREIGN = {
    "another site": {"origin": OTHER, "sec_fetch_site": "cross-site"},
    "another host of the site": {"origin": "https://other.testserver", "sec_fetch_site": "same-site"},
    "an older browser": {"origin": OTHER},
    "no origin to tell": {"origin": "null"},
    "a form without an origin": {"sec_fetch_site": "cross-site"},
    "another port": {"origin": "http://testserver:8080"},
    "a name that begins alike": {"origin": "http://testserver.evil.example"},
    "what is no origin": {"origin": "http://[testserver"},
}
OWN = {
    "no browser": {},
    "this page": {"origin": "http://testserver", "sec_fetch_site": "same-origin"},
    "this page, an older browser": {"origin": "http://testserver"},
    "this page, its port written": {"origin": "http://testserver:80"},
    "behind a proxy that renames hosts": {
        "origin": "https://robots.example",
        "sec_fetch_site": "same-origin",
    },
    "a typed address": {"sec_fetch_site": "none"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_page_of_another_origin_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    sentence = check(ask(client, **headers), 403, "origin_refused", "Origin")["message"]
    assert "TOSA_VQA_CORS_ORIGINS" in sentence


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_its_own_pages_and_other_clients_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    response = ask(client, **headers)
    assert response.status_code == 200, response.text
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", POSTS)
def test_every_address_that_works_refuses_before_it_reads(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the body was read")

    monkeypatch.setattr("service.api.lifecycle.receive_body", never)
    response = client.post(path, content=b"{}", headers={"content-type": "text/plain", "origin": OTHER})
    assert response.status_code == 403 and response.json()["error"]["code"] == "origin_refused"


def test_a_service_without_the_check_would_be_found(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin."""
    monkeypatch.setattr(client.app.state.service.origins, "check", lambda _: None)  # type: ignore[attr-defined]
    assert ask(client, origin=OTHER).status_code == 200


def test_an_allowed_page_is_answered_and_may_read(opened: TestClient) -> None:
    for origin in (PAGE, "http://localhost:5173", PAGE.upper()):
        response = ask(opened, origin=origin, sec_fetch_site="cross-site")
        assert response.status_code == 200, response.text
    allowed = ask(opened, origin=PAGE).headers
    assert allowed["access-control-allow-origin"] == PAGE and "origin" in allowed["vary"].lower()
    assert "X-Request-ID" in allowed["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in allowed


def test_an_allowed_page_may_read_refusals(opened: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = opened.post("/vqa", json={}, headers={"origin": PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (422, PAGE)

    def surprise(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("service.api.routes.parse_question", surprise)
    broken = ask(opened, origin=PAGE)
    assert (broken.status_code, broken.headers["access-control-allow-origin"]) == (500, PAGE)


def test_a_browser_that_asks_before_is_told(opened: TestClient, client: TestClient) -> None:
    told = opened.options("/v1/chat/completions", headers={"origin": PAGE, **ASKED})
    assert told.status_code == 200 and told.headers["access-control-allow-origin"] == PAGE
    assert told.headers["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    assert (
        "access-control-allow-origin"
        not in opened.options("/vqa", headers={"origin": OTHER, **ASKED}).headers
    )
    asked = {"origin": PAGE, "access-control-request-method": "HEAD"}
    assert opened.options("/readyz", headers=asked).status_code == 200
    off = client.options("/vqa", headers={"origin": PAGE, **ASKED})
    assert off.status_code == 405 and "access-control-allow-origin" not in off.headers


def test_other_pages_stay_refused(opened: TestClient) -> None:
    check(ask(opened, origin=OTHER, sec_fetch_site="cross-site"), 403, "origin_refused", "Origin")
    check(ask(opened, sec_fetch_site="cross-site"), 403, "origin_refused", "Origin")


def test_all_pages_may_be_allowed(checkpoint: Path) -> None:
    with running(checkpoint, depth_model="none", cors_origins="*") as client:
        response = ask(client, origin="null", sec_fetch_site="cross-site")
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    "wrong",
    ["demo.example", "https://demo.example/", "https://demo.example/app", "https://*.example", "null", "a b"],
)
def test_what_is_no_origin_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="scheme://host"):
        Settings(cors_origins=wrong)


def test_a_refused_question_is_counted_and_costs_nothing(client: TestClient, question: Question) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'code="origin_refused"' in line)

    before = counted()
    ask(client, origin=OTHER)
    assert counted() > before
    assert question.post(client, "json").status_code == 200
