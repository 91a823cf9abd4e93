"""What is tried again, how often, and that no call lasts longer than it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest

from tests.service.files import IMAGE
from tosa_vqa_client import (
    AsyncClient,
    BadResponse,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Progress,
    Refusal,
    Retries,
    ServiceError,
)
from tosa_vqa_client.retries import Attempts

ANSWER = {
    **{"answer": "2", "request_id": "r", "model": {"id": "m", "revision": "0"}, "views": [], "depth": None},
    "merge": {
        **{"method": "none", "keep_ratio": 1, "tokens_in": 4, "tokens_out": 4, "vit_flops_ratio": 1},
        **{"saves": [], "prop_attn": False},
    },
    **{"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "finish_reason": "stop", "cached": False},
    **{"batch_size": 1, "timings_ms": {"total": 1.0}},
}


def refusal(status: int, code: str = "overloaded", **headers: str) -> httpx.Response:
    error = {"code": code, "message": "Too many.", "request_id": "r"}
    return httpx.Response(status, json={"error": error}, headers=headers)


class Service:
    """Answers with these responses in turn, and with an answer after them; remembers what was sent."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses, self.sent = list(responses), list[bytes]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.read())
        told = self.responses.pop(0) if self.responses else httpx.Response(200, json=ANSWER)
        if isinstance(told, Exception):
            raise told
        return told


class AsyncService:
    """The same for a client that is awaited."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.service(request)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, slept: list[float]) -> Callable[..., Any]:
    """Ask through the one client or the other."""

    def ask(service: Service, retries: Retries | None = None, **options: Any) -> Any:
        if request.param == "sync":
            with Client("http://x", transport=httpx.MockTransport(service), retries=retries) as client:
                return client.ask("how many ?", IMAGE, **options)

        async def run() -> Any:
            transport = httpx.MockTransport(AsyncService(service))
            async with AsyncClient("http://x", transport=transport, retries=retries) as client:
                return await client.ask("how many ?", IMAGE, **options)

        return anyio.run(run)

    return ask


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Sleep for no time, and say how long it would have been."""
    times: list[float] = []

    async def sleep(seconds: float) -> None:
        times.append(seconds)

    monkeypatch.setattr("tosa_vqa_client.client.time.sleep", times.append)
    monkeypatch.setattr("tosa_vqa_client.async_client.anyio.sleep", sleep)
    yield times


Ask = Callable[..., Any]


def test_a_busy_service_is_asked_again_when_it_says(ask: Ask, slept: list[float]) -> None:
    service = Service(refusal(503, **{"Retry-After": "7"}), refusal(429, **{"Retry-After": "1"}))
    assert ask(service, timeout_s=None).answer == "2"
    assert slept == [7, 1] and len(service.sent) == 3


def test_without_retry_after_the_pauses_grow(ask: Ask, slept: list[float]) -> None:
    html = httpx.Response(502, text="<h1>Bad Gateway</h1>")
    assert ask(Service(refusal(503), html, httpx.ReadError("reset"))).answer == "2"
    assert slept == [0.25, 0.5, 1.0]


STAYS = [(422, "unknown_method"), (401, "unauthorized"), (500, "internal"), (504, "deadline_exceeded")]


@pytest.mark.parametrize(("status", "code"), STAYS)
def test_what_stays_wrong_is_not_tried_again(ask: Ask, slept: list[float], status: int, code: str) -> None:
    service = Service(refusal(status, code))
    with pytest.raises(ServiceError) as refused:
        ask(service)
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (status, code, "r")
    assert slept == [] and len(service.sent) == 1


def test_tries_are_bounded(ask: Ask, slept: list[float]) -> None:
    service = Service(*[refusal(503) for _ in range(9)])
    with pytest.raises(ServiceError) as refused:
        ask(service, Retries(attempts=3))
    assert refused.value.code == "overloaded" and len(service.sent) == 3 and len(slept) == 2
    service = Service(refusal(429, "budget_exceeded", **{"Retry-After": "60"}))
    with pytest.raises(ServiceError) as refused:
        ask(service, timeout_s=None)
    assert refused.value.retry_after_s == 60 and len(service.sent) == 1, "longer than longest_wait_s"
    service = Service(refusal(503, **{"Retry-After": "20"}))
    with pytest.raises(ServiceError):
        ask(service, timeout_s=10)
    assert len(service.sent) == 1, "the deadline is before the next try"


def test_a_lost_connection_ends_as_one(ask: Ask) -> None:
    with pytest.raises(ConnectionFailed, match=r"http://x: refused\. Is the service running there\?"):
        ask(Service(*[httpx.ConnectError("refused") for _ in range(4)]))


def test_a_silent_service_is_too_late(ask: Ask) -> None:
    service = Service(httpx.ReadTimeout("silent"))
    with pytest.raises(DeadlineExceeded, match="within 5 s: ask with a longer timeout_s"):
        ask(service, timeout_s=5)
    assert len(service.sent) == 1


def test_the_service_is_told_how_much_time_is_left(ask: Ask) -> None:
    service = Service()
    ask(service, timeout_s=10)
    assert 9 < float(field(service.sent[0], "timeout_s")) < 9.5001
    ask(service, timeout_s=None)
    assert b'name="timeout_s"' not in service.sent[1]


def field(body: bytes, name: str) -> str:
    """Return a field of a form."""
    return body.partition(f'name="{name}"\r\n\r\n'.encode())[2].partition(b"\r\n")[0].decode()


def test_a_deadline_counts_all_tries() -> None:
    now = [0.0]
    attempts = Attempts(Retries(attempts=99), 10.0, clock=lambda: now[0])
    busy = ServiceError(Refusal(code="overloaded", message="Busy.", request_id="r"), 503, 4.0)
    assert attempts.pause_s(busy) == 4
    now[0] = 5
    assert attempts.left_s() == 5 and attempts.pause_s(busy) == 4
    now[0] = 9
    with pytest.raises(ServiceError):
        attempts.pause_s(busy)
    now[0] = 10
    with pytest.raises(DeadlineExceeded):
        attempts.left_s()


def test_progress_says_what_happens(ask: Ask) -> None:
    seen: list[Progress] = []
    big = bytes(150_000)
    service = Service(refusal(503, **{"Retry-After": "2"}))
    ask(service, on_progress=seen.append, depth=big)
    assert [one.stage for one in seen] == [
        *["sending"] * 3,
        "waiting",
        "retrying",
        *["sending"] * 3,
        "waiting",
    ]
    assert seen[3].sent_bytes == seen[3].total_bytes == len(service.sent[0])
    assert (seen[4].attempt, seen[4].wait_s, seen[4].reason) == (2, 2, "overloaded: Too many.")
    assert big in service.sent[1] and seen[-1].attempt == 2


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (200, "<html>hotel wifi", "HTTP 200 without a JSON object: <html>hotel wifi"),
        (200, '{"answer": "2"}', "this client does not understand the answer: Answer lacks"),
        (404, '{"detail": "Not Found"}', "HTTP 404, which is no answer of tosa-vqa"),
    ],
)
def test_what_is_no_service_is_said(ask: Ask, status: int, text: str, said: str) -> None:
    with pytest.raises(BadResponse, match=said):
        ask(Service(httpx.Response(status, text=text)))


def test_an_error_says_what_to_do() -> None:
    error = {
        "code": "c",
        "message": "No.",
        "request_id": "r",
        "field": "f",
        "choices": ["a", "b"],
        "limit": 8,
    }
    service = Service(httpx.Response(422, json={"error": error}))
    with (
        Client("http://x", transport=httpx.MockTransport(service)) as client,
        pytest.raises(ServiceError) as one,
    ):
        client.ask("how many ?", IMAGE)
    assert str(one.value) == "c: No. (f) Choose from: a, b. The limit is 8."
    assert (one.value.field, one.value.choices, one.value.limit) == ("f", ("a", "b"), 8)


def test_the_key_and_the_name_of_a_request_are_sent() -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, json=ANSWER)

    with Client("http://x/", api_key="secret", transport=httpx.MockTransport(answer)) as client:
        client.ask("how many ?", IMAGE, request_id="robot-7.0042")
    assert seen[0]["authorization"] == "Bearer secret" and seen[0]["x-request-id"] == "robot-7.0042"
    assert json.dumps(client.url) == '"http://x"'


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with http:// or https://, and this is localhost:8000"):
        Client("localhost:8000")
