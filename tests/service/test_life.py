"""The service around its requests: not ready, busy, full, slow clients, surprises, the small addresses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.api.state
from service.api.state import UNUSABLE, ServiceState
from service.app import create_app
from service.engine.engine import Engine
from service.errors import ServiceError
from service.pipeline.frame_cache import FrameCache
from service.pipeline.models import Models
from service.settings import Settings
from tests.depth.estimators import CASES, write_checkpoint
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import PLACES, Question, running, until_ready
from tests.service.test_refusals import check


@contextmanager
def busy_model(client: TestClient) -> Iterator[None]:
    """Keep the model thread waiting."""
    release = threading.Event()
    _engine(client).model_thread.run(release.wait)
    try:
        yield
    finally:
        release.set()


def _engine(client: TestClient) -> Engine:
    state: ServiceState = client.app.state.service  # type: ignore[attr-defined]
    return state.engine


def test_probes_and_lists_answer_while_the_model_is_busy(client: TestClient, question: Question) -> None:
    with ThreadPoolExecutor(1) as pool:
        with busy_model(client):
            waiting = pool.submit(question.post, client, "multipart")
            wait_for(lambda: _engine(client).admission.in_flight == 1)
            for url in ("/livez", "/readyz", "/methods", "/"):
                assert client.get(url).status_code == 200
            assert not waiting.done()
        answer = waiting.result(PATIENCE_S)
    assert answer.status_code == 200 and answer.json()["timings_ms"]["queue"] > 0


def test_full_means_full_and_not_before(client: TestClient, question: Question, form: str) -> None:
    inside: list[Future[Any]] = []
    with ThreadPoolExecutor(8) as pool:
        with busy_model(client):
            for number in range(1, PLACES + 1):
                inside.append(pool.submit(question.post, client, form))
                wait_for(lambda number=number: _engine(client).admission.in_flight == number)
            for refused in [pool.submit(question.post, client, form) for _ in range(4)]:
                response = refused.result(PATIENCE_S)
                check(response, 503, "overloaded")
                assert int(response.headers["retry-after"]) >= 1
        assert [one.result(PATIENCE_S).status_code for one in inside] == [200] * len(inside)
    assert _engine(client).admission.in_flight == 0


def test_refused_when_full_before_the_body_is_read(client: TestClient) -> None:
    def never_read() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield

    engine = _engine(client)
    places = [engine.admission.acquire() for _ in range(PLACES)]
    for place in places:
        place.__enter__()
    try:
        with pytest.raises(ServiceError), engine.admission.acquire():
            pass
        response = client.post("/vqa", json={"images": ["not even base64"]})
        check(response, 503, "overloaded")
    finally:
        for place in places:
            place.__exit__(None, None, None)


@pytest.mark.parametrize("kind", [RuntimeError, StopIteration])
@pytest.mark.parametrize("where", ["engine.vision_stage.frame_visuals", "api.lifecycle.prepare"])
def test_a_surprise_is_internal_and_says_nothing(
    client: TestClient,
    question: Question,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    kind: type[Exception],
) -> None:
    """In the thread of the model, and in those that decode."""

    def surprise(*_: object) -> None:
        raise kind("secret at 0xdeadbeef in /tmp/x.py")

    with monkeypatch.context() as patch:
        patch.setattr(f"service.{where}", surprise)
        check(question.post(client, form), 500, "internal")
    assert question.post(client, form).status_code == 200


def test_not_ready_until_warm(checkpoint: Path, question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    load = service.api.state.load_and_warm_up

    def wait_and_load(settings: Settings) -> Any:
        may_load.wait(PATIENCE_S)
        return load(settings)

    monkeypatch.setattr(service.api.state, "load_and_warm_up", wait_and_load)
    with TestClient(create_app(Settings(model=str(checkpoint)))) as client:
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), question.post(client, "json")):
            check(response, 503, "not_ready")
            assert response.headers["retry-after"] == "5"
        may_load.set()
        until_ready(client)
        assert question.post(client, "json").status_code == 200


def test_stopping_while_loading(checkpoint: Path) -> None:
    with TestClient(create_app(Settings(model=str(checkpoint)))) as client:
        assert client.get("/livez").status_code == 200


def test_a_model_that_cannot_be_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed = threading.Event()
    with TestClient(create_app(Settings(model=str(tmp_path)), end_process=lambda _: failed.set())) as client:
        assert failed.wait(PATIENCE_S)
        message = check(client.get("/readyz"), 503, "not_ready")["message"]
        assert "could not be loaded" in message
        assert client.get("/livez").status_code == 200
    assert "config.json is missing" in caplog.text


def test_an_estimator_that_cannot_be_loaded(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed, codes = threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        failed.set()

    settings = Settings(model=str(checkpoint), depth_model="no/such/thing")
    with TestClient(create_app(settings, end_process=end)) as client:
        assert failed.wait(PATIENCE_S) and codes == [UNUSABLE] == [1]
        message = check(client.get("/readyz"), 503, "not_ready")["message"]
        assert "depth estimator could not be loaded" in message
    assert "the depth estimator could not be loaded: no/such/thing is not" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_licence_that_forbids_commerce_is_refused_unless_allowed(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = write_checkpoint(tmp_path / "nc", CASES["depth-anything"], "license: cc-by-nc-4.0")
    given: dict[str, Any] = {"model": str(checkpoint), "depth_model": str(weights), "depth_size_px": 56}
    failed = threading.Event()
    with TestClient(create_app(Settings(**given), end_process=lambda _: failed.set())):
        assert failed.wait(PATIENCE_S)
    assert "its licence is cc-by-nc-4.0" in caplog.text
    with running(checkpoint, depth_model=weights, depth_size_px=56, allow_non_commercial=True) as client:
        answer = Question().but(depths=(), method="tosa").post(client, "json").json()
    assert answer["depth"]["estimator"]["licence"] == "cc-by-nc-4.0"


def test_a_slow_body_ends_in_a_timeout(checkpoint: Path) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(1)
        return {"type": "http.request", "body": b"{", "more_body": True}

    sent = post_by_hand(Settings(model=str(checkpoint), body_timeout_s=0.05), receive)
    assert sent[0]["status"] == 408 and b"request_timeout" in sent[1]["body"]


def test_a_client_that_leaves_while_sending_frees_its_place(checkpoint: Path) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert post_by_hand(Settings(model=str(checkpoint)), receive) == []


def post_by_hand(settings: Settings, receive: Any) -> list[Any]:
    """Send a body message by message to an app that believes it has a model; return what it sends."""
    app = create_app(settings)
    app.state.service._models = Models(object(), None, FrameCache(0))  # type: ignore[arg-type]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/vqa",
        "raw_path": b"/vqa",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert app.state.service.engine.admission.in_flight == 0
    app.state.service.close()
    return sent


def test_index_and_schema(client: TestClient) -> None:
    assert client.get("/").json()["ask"] == "POST /vqa"
    body = client.get("/openapi.json").json()["paths"]["/vqa"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    in_form = body["multipart/form-data"]["schema"]["properties"]
    in_json = body["application/json"]["schema"]["properties"]
    assert {"image", "depth", "question", "keep_ratio", "layers", "options"} <= set(in_form)
    assert {"images", "depths", "depth", "question"} <= set(in_json)
    assert in_form["depth"]["items"] == {"type": "string", "format": "binary"}
