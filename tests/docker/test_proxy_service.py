"""The real service behind the shipped proxy, on a tiny checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.docker.conftest import FAST
from tests.docker.door import Door, Names, exchange, opened
from tests.docker.replica import serving
from tests.docker.test_proxy import post, shipped
from tests.loopback import free_port, wait_for
from tests.needs import skip_without
from tests.service.conftest import Question, checkpoint, question

__all__ = ["checkpoint", "question"]
PUBLIC = {
    *(
        "/",
        "/vqa",
        "/vqa/compare",
        "/vqa/overlay",
        "/rooms",
        "/episodes",
        "/depth/inspect",
        "/methods",
        "/v1/models",
        "/v1/chat/completions",
    ),
    *("/livez", "/readyz", "/openapi.json"),
}
PUBLIC_PATTERNS = {
    *("/v1/models/{name:path}", "/playground/{tag}/{name}"),
    *("/episodes/{id}", "/episodes/{id}/frames", "/episodes/{id}/poses", "/episodes/{id}/vqa"),
}
PRIVATE = {"/metrics", "/docs", "/docs/{name}"}


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Door]:
    skip_without("haproxy")
    names, port = Names(["127.0.0.2"]), free_port()
    app = create_app(Settings(model=str(checkpoint), depth_model="none", body_timeout_s=1, num_threads=1))
    with ExitStack() as stack:
        stack.callback(names.close)
        stack.enter_context(serving(app, "127.0.0.2", port))
        with httpx.Client(base_url=f"http://127.0.0.2:{port}", trust_env=False) as client:
            wait_for(lambda: client.get("/readyz").status_code == 200)
        door = stack.enter_context(opened(names, port, **FAST))
        wait_for(door.is_up)
        yield door


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_a_question_is_answered_through_the_proxy(served: Door, question: Question, form: str) -> None:
    with served.client() as client:
        response = question.post(client, form)
    assert response.status_code == 200 and "server" not in response.headers
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_the_service_refuses_in_its_own_words(served: Door, question: Question) -> None:
    with served.client() as client:
        over = question.but(images=(bytes(32 * 2**20 + 2**19),)).post(client, "multipart")
        other = client.get("/vqa")
        assert (other.status_code, other.json()["error"]["code"]) == (405, "method_not_allowed")
        assert other.headers["Allow"] == "POST"
        assert question.but(method="no").post(client, "json").json()["error"]["code"] == "unknown_method"
    assert (over.status_code, over.json()["error"]["limit"]) == (413, 32 * 2**20)


def test_a_large_upload_that_stalls_is_refused_by_the_service(served: Door) -> None:
    start = time.monotonic()
    with served.connect() as connection:
        raw = post("/vqa", 5_000_000, "Content-Type: application/json") + bytes(2_000_000)
        assert b" 408 " in exchange(connection, raw).partition(b"\r\n")[0]
    assert time.monotonic() - start < 8, "closed only by the 10 s that the proxy gives to silence"


def addresses(routes: Iterable[Any]) -> Iterator[str]:
    """Yield the path of every route; newer releases of FastAPI keep included routers as they are."""
    for route in routes:
        included = getattr(route, "original_router", None)
        yield from [route.path] if included is None else addresses(included.routes)


def test_every_address_of_the_service_is_public_or_private_on_purpose() -> None:
    routes = set(addresses(create_app(Settings(depth_model="none")).routes))
    assert "/vqa" in routes
    assert routes - PUBLIC - PUBLIC_PATTERNS - PRIVATE == set()
    assert set(shipped()["is_public"].split()) == PUBLIC
