"""One service with its language model, the same with language servers, and these servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.language import servers
from service.settings import Settings
from tests.language.stub_server import Behaviour, Stub, stub_server
from tests.loopback import wait_for
from tests.service.chats import chat, image, text, user
from tests.service.conftest import LIMITS, Question
from tests.service.conftest import checkpoint as checkpoint
from tests.service.conftest import form as form
from tests.service.conftest import question as question
from tests.service.live import Live, live
from tests.service.test_streams import Event
from tests.vlm.test_vlm_grammar import obj
from vlm import Vlm, load_vlm


@pytest.fixture(scope="session")
def whole(checkpoint: Path) -> Vlm:
    """The model with its language part, as the servers have it."""
    return load_vlm(checkpoint)


@pytest.fixture(scope="module")
def here(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


@pytest.fixture(scope="module")
def stub(whole: Vlm) -> Iterator[Stub]:
    with stub_server(whole) as stub:
        yield stub


@pytest.fixture(scope="module")
def other(whole: Vlm) -> Iterator[Stub]:
    with stub_server(whole) as stub:
        yield stub


@pytest.fixture(scope="module", autouse=True)
def _asked_often() -> Iterator[None]:
    """Ask servers how they are so often that no test waits for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "ASK_DOWN_S", 0.05)
        patch.setattr(servers, "ASK_WRONG_S", 0.1)
        yield


@contextmanager
def served_by(checkpoint: Path, *stubs: Stub, **settings: Any) -> Iterator[Live]:
    urls = ",".join(stub.url for stub in stubs)
    with live(checkpoint, language="vllm", language_urls=urls, **settings) as served:
        yield served


@contextmanager
def unready(checkpoint: Path, url: str, **settings: Any) -> Iterator[TestClient]:
    """A client of a service that need not become ready."""
    given = {**LIMITS, "depth_model": "none", "language": "vllm", "language_urls": url, **settings}
    with TestClient(create_app(Settings(model=str(checkpoint), **given))) as client:
        yield client


@pytest.fixture(scope="module")
def apart(checkpoint: Path, stub: Stub) -> Iterator[Live]:
    """A service whose answers come from one server."""
    with served_by(checkpoint, stub) as served:
        yield served


@pytest.fixture(autouse=True)
def _well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let every server behave again after a test, and wait until none of them writes."""
    yield
    for name in ("stub", "other"):
        if name in request.fixturenames:
            one = request.getfixturevalue(name)
            one.go.set()
            one.behaviour = Behaviour()
            wait_for(lambda one=one: one.running == 0)
            one.go.clear()
            one.requests.clear()
            one.headers.clear()
            one.asked.clear()
            one.aborted = one.most_running = 0


def ask(served: Live, question: Question, /, **changes: Any) -> dict[str, Any]:
    """Ask and return the answer, without what differs from one request to the next."""
    response = question.but(**changes).post(served.client, "json")
    assert response.status_code == 200, response.text
    return same(response.json())


def same(body: dict[str, Any]) -> dict[str, Any]:
    drop = ("timings_ms", "request_id", "batch_size", "cached", "id", "created")
    return {name: value for name, value in body.items() if name not in drop}


def text_of(events: list[Event]) -> str:
    """Return the text of a stream, whatever its pieces are."""
    return "".join(data["text"] for name, data in events if name == "text")


def assert_a_schema_is_kept(here: Live, apart: Live, picture: bytes) -> None:
    """Ask both about a picture: the answers are the same, and inside their schema."""
    schema = obj(side={"enum": ["left", "right"]})
    named = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    fields = {"max_tokens": 64, "response_format": named, "merge": {"method": "none"}}
    request = chat(user(image(picture), text("which side ?")), **fields)
    ours, theirs = (one.client.post("/v1/chat/completions", json=request) for one in (here, apart))
    assert theirs.status_code == 200, theirs.text
    assert same(theirs.json()) == same(ours.json())
    assert json.loads(theirs.json()["choices"][0]["message"]["content"])["side"] in ("left", "right")
