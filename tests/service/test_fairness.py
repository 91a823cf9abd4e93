"""With API keys: no address that costs anything opens without one, and no key takes the places of another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from service.api.playground import assets, version
from service.app import create_app
from service.settings import Settings
from tests.loopback import PATIENCE_S
from tests.service.conftest import Question
from tests.service.live import Live, live, read_until

A, B = {"Authorization": "Bearer secret-a"}, {"X-API-Key": "secret-b"}
PLACES = 12
OPEN = {
    "/livez": "probes have no key",
    "/playground/{tag}/{name}": "the same for everybody, files of the page",
    "/readyz": "probes have no key",
    "/": "the same for everybody, and names nothing but addresses",
    "/methods": "the same for everybody",
    "/openapi.json": "the same for everybody",
    "/docs": "the same for everybody, a page about /openapi.json",
    "/docs/{name}": "belongs to /docs, static",
    "/metrics": "read by Prometheus from inside; the shipped proxy answers 404 to the outside",
}
"""All that answers without a key, and why."""


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(
        checkpoint,
        api_keys="a=secret-a,b=secret-b",
        key_max_in_flight=4,
        max_queue=PLACES - 4,
        max_batch=4,
    ) as served:
        yield served


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Walk all addresses, also those behind included routers."""
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, Route | APIRoute):
            yield from ((method, route.path) for method in route.methods or ())
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "router", None)
            assert inner is not None, f"unknown kind of route: {route!r}"
            waiting += inner.routes


def test_every_address_but_the_public_ones_wants_a_key(served: Live) -> None:
    walked = set(routes(create_app(Settings(depth_model="none"))))
    assert {path for _, path in walked} > {"/vqa", "/v1/models/{name:path}", *OPEN}
    for method, path in walked:
        address = (
            path.replace("{tag}/{name}", f"{version()}/{min(assets())}")
            .replace("{name:path}", "tiny")
            .replace("{name}", "start.js")
        )
        kinds = ("application/json", "text/plain", "multipart/form-data")
        for kind, key in product(kinds, ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer x y"}, A | B)):
            response = served.client.request(
                method, address, content=b"{}", headers={"Content-Type": kind, **key}
            )
            if path in OPEN:
                assert response.status_code == 200, (method, path)
            else:
                assert response.status_code == 401, (method, path, kind, key)
                assert response.headers["www-authenticate"] == "Bearer"


def test_an_address_that_forgets_its_key_would_be_found(
    served: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin."""
    monkeypatch.setattr(served.state.keys, "identify", lambda _: None)
    with pytest.raises(AssertionError):
        test_every_address_but_the_public_ones_wants_a_key(served)


def test_no_way_of_writing_an_address_gets_around_the_key(served: Live) -> None:
    rng, seen = Random(3), Counter[int]()
    bends = [
        "//",
        "/./",
        "/%2e/",
        "/livez/../",
        "/livez;/",
        "/livez%2f..%2f",
        "/%2f",
        "/\\",
        "/livez%00/",
        "/",
    ]
    hosts = ["x", "x/livez?", "a?b/c@d", "localhost#", "livez", "[::1]", "x:80/livez"]
    names = [
        "vqa",
        "VQA",
        "vqa/compare",
        "v1/chat/completions",
        "v1/models",
        "depth/inspect",
        "%76qa",
        "vqa?/livez",
    ]
    more = [
        "",
        "X-Original-URL: /livez\r\n",
        "X-Forwarded-Prefix: /livez\r\n",
        "X-HTTP-Method-Override: GET\r\n",
    ]
    with served.connect() as connection:
        for _ in range(600):
            target = rng.choice(bends) + rng.choice(names)
            head = f"POST {target} HTTP/1.1\r\nHost: {rng.choice(hosts)}\r\n{rng.choice(more)}"
            connection.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            )
            status = int(read_until(connection, b"}}")[9:12])
            seen[status] += 1
    assert set(seen) <= {401, 404, 405} and seen[401] > 20, seen


def flood(served: Live, stop: threading.Event, ask: Any) -> Counter[int]:
    seen = Counter[int]()
    with httpx.Client(base_url=served.client.base_url, headers=A, timeout=PATIENCE_S) as client:
        while not stop.is_set():
            seen[ask(client).status_code] += 1
            time.sleep(0.005)  # or this process would be busy with refusals alone
    return seen


@pytest.mark.parametrize("how", ["questions", "comparisons"])
def test_a_key_that_floods_takes_no_place_of_another(served: Live, question: Question, how: str) -> None:
    few = question.but(max_new_tokens=8)
    specs = [{"method": "tome", "keep_ratio": 0.5 + at / 100} for at in range(6)]
    comparison = few.but(specs=specs)
    stop = threading.Event()
    with ThreadPoolExecutor(12) as pool:
        flooding = [
            pool.submit(
                flood,
                served,
                stop,
                lambda client: (
                    few.post(client, "json")
                    if how == "questions"
                    else comparison.post(client, "json", "/vqa/compare")
                ),
            )
            for _ in range(7)
        ]
        with httpx.Client(base_url=served.client.base_url, headers=B, timeout=PATIENCE_S) as client:
            honest = []
            for _ in range(8):
                honest.append(few.post(client, "json").status_code)
                time.sleep(0.02)
        stop.set()
        seen = sum((one.result() for one in flooding), Counter[int]())
    assert set(honest) == {200}, (honest, seen)
    assert seen[429] > 10 and seen[200] > 0 and set(seen) == {200, 429}, seen


def test_without_a_limit_of_its_own_the_flood_wins(checkpoint: Path, question: Question) -> None:
    """The twin."""
    with live(checkpoint, api_keys="a=secret-a,b=secret-b", max_queue=0, max_batch=1) as served:
        stop = threading.Event()
        with ThreadPoolExecutor(6) as pool:
            flooding = [
                pool.submit(flood, served, stop, lambda client: question.post(client, "json"))
                for _ in range(6)
            ]
            with httpx.Client(base_url=served.client.base_url, headers=B, timeout=PATIENCE_S) as client:
                honest = Counter(question.post(client, "json").status_code for _ in range(15))
            stop.set()
            assert all(one.result() for one in flooding)
    assert honest[503] > 0, honest


def test_a_comparison_of_more_settings_than_the_key_has_places_is_answered(
    served: Live, question: Question
) -> None:
    specs = [{"method": "tome", "keep_ratio": 0.5 + at / 100} for at in range(9)]
    response = served.client.post(
        "/vqa/compare",
        json={**question.but(specs=specs).fields, "images": _images(question)},
        headers=A,
    )
    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 9
    assert served.state.budgets.in_flight("a") == 0 and served.in_flight == 0


def _images(question: Question) -> list[str]:
    import base64

    return [base64.b64encode(one).decode() for one in question.images]
