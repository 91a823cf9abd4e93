"""The official openai client and curl against the running service over loopback: they read what we send."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from examples import openai_client
from service.api.chat.response import ChatStream
from service.api.errors import error_body
from service.api.sse import chunk_event
from service.app import create_app
from service.errors import ServiceError
from service.settings import Settings
from tests.loopback import PATIENCE_S, wait_for
from tests.needs import needs
from tests.service.answers import ANSWER
from tests.service.chats import QUESTION, depth, image, text, user
from tests.service.conftest import LIMITS, Question
from tests.service.test_chat_events import read

MODEL = "tiny"
ASKED: list[Any] = [user(image(), text())]
STEERED: list[Any] = [user(image(), depth(), text())]


@contextmanager
def served(checkpoint: Path, **settings: Any) -> Iterator[str]:
    """Run the service behind uvicorn in a thread; yield its address once it is ready."""
    app = create_app(
        Settings(model=str(checkpoint), depth_model="none", **{**LIMITS, "max_queue": 16, **settings})
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        wait_for(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    with served(checkpoint) as url:
        yield url


@contextmanager
def opened(url: str, **options: Any) -> Iterator[openai.OpenAI]:
    options = {"api_key": "none", "max_retries": 0, **options}
    http_client = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{url}/v1", http_client=http_client, **options) as client:
        yield client


@pytest.fixture(scope="module")
def robot(url: str) -> Iterator[openai.OpenAI]:
    with opened(url) as client:
        yield client


def ask(robot: openai.OpenAI, messages: list[Any] = ASKED, **fields: Any) -> Any:
    return robot.chat.completions.create(**{"model": MODEL, "messages": messages, "max_tokens": 8, **fields})


def test_a_chat_is_answered_as_the_same_question(robot: openai.OpenAI, url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        plain = (
            Question(depths=(), fields={"question": QUESTION, "max_new_tokens": 8})
            .post(client, "json")
            .json()
        )
    answer = ask(robot)
    assert answer.choices[0].message.content == plain["answer"] and plain["answer"]
    assert answer.choices[0].finish_reason == plain["finish_reason"]
    assert answer.usage.prompt_tokens == plain["usage"]["prompt_tokens"]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == MODEL and answer.merge == plain["merge"]


def test_merging_and_depth_are_extras(robot: openai.OpenAI) -> None:
    extra = {"merge": {"method": "tosa", "keep_ratio": 0.5}, "depth": {"scale": 1000}, "cache": False}
    answer = ask(robot, STEERED, extra_body=extra)
    assert (answer.merge["method"], answer.merge["tokens_in"], answer.merge["tokens_out"]) == ("tosa", 16, 8)
    assert (answer.depth["source"], answer.depth["kind"], answer.cached) == ("client", "metric", False)
    assert answer.timings_ms["total"] > 0 and answer.batch_size == 1
    assert ask(robot, STEERED).merge["keep_ratio"] == 0.25  # depth was sent, so tosa is the default


def test_a_stream_says_the_same(robot: openai.OpenAI) -> None:
    whole = ask(robot, STEERED)
    chunks = list(ask(robot, STEERED, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        == whole.choices[0].message.content
    )
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert chunks[-1].merge == whole.merge and chunks[-1].depth == whole.depth
    bare = list(ask(robot, STEERED, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in bare)


def test_a_stop_ends_the_answer(robot: openai.OpenAI) -> None:
    whole = ask(robot).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    cut = whole[: whole.index(stop)]
    answer = ask(robot, stop=[stop])
    assert (answer.choices[0].message.content.rstrip(), answer.choices[0].finish_reason) == (
        cut.rstrip(),
        "stop",
    )
    chunks = list(ask(robot, stop=[stop], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).rstrip() == cut.rstrip()
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_conversation_goes_on(robot: openai.OpenAI) -> None:
    first = ask(robot)
    history = [*ASKED, first.choices[0].message, user(text("and now ?"), image())]
    later = ask(robot, history)
    assert later.usage.prompt_tokens > first.usage.prompt_tokens
    assert later.merge["tokens_in"] == 2 * first.merge["tokens_in"]


def test_names_of_requests_come_back(robot: openai.OpenAI) -> None:
    raw = robot.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, max_tokens=2, extra_headers={"X-Request-ID": "robot-7.0042"}
    )
    answer: Any = raw.parse()
    assert raw.headers["x-request-id"] == answer.request_id == "robot-7.0042"
    assert answer.id == "chatcmpl-robot-7.0042" and answer._request_id == "robot-7.0042"
    assert raw.headers["server-timing"]


def test_models(robot: openai.OpenAI) -> None:
    (one,) = robot.models.list().data
    assert one.id == MODEL and robot.models.retrieve(MODEL) == one
    with pytest.raises(openai.NotFoundError) as caught:
        robot.models.retrieve("gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


KINDS = {400: openai.BadRequestError, 404: openai.NotFoundError, 422: openai.UnprocessableEntityError}
SMALL = {"method": "tome", "keep_ratio": 0.01}  # only the plan for this model knows that it is too small
REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
    ({"n": 9}, 422, "bad_generation", "n"),
    ({"presence_penalty": 1}, 422, "unsupported_field", "presence_penalty"),
    ({"response_format": {"type": "grammar"}}, 422, "bad_schema", "response_format.type"),
    ({"max_tokens": 0}, 422, "bad_generation", "max_tokens"),
    ({"max_completion_tokens": 0}, 422, "bad_generation", "max_completion_tokens"),
    ({"messages": [user(text())]}, 422, "image_count", "messages"),
    ({"messages": [user(image(b"x"), text())]}, 422, "bad_image", "messages[0].content[0].image_url"),
    ({"messages": []}, 422, "bad_turns", "messages"),
    ({"stream": "yes"}, 400, "bad_request", "stream"),
    ({"extra_body": {"merge": {"ratio": 1}}}, 422, "unknown_field", "merge.ratio"),
    ({"extra_body": {"merge": {"method": "zip"}}}, 422, "unknown_method", "merge.method"),
    ({"extra_body": {"merge": {"method": "tome", "r": -1}}}, 422, "bad_merge_spec", "merge.r"),
    ({"extra_body": {"merge": SMALL}}, 422, "keep_ratio_out_of_range", "merge.keep_ratio"),
    ({"extra_body": {"depth": {"scale": 0}}}, 422, "bad_depth_scale", "depth.scale"),
    ({"extra_body": {"keep_ratio": 1}}, 422, "unknown_field", "keep_ratio"),
]


@pytest.mark.parametrize(("changes", "status", "code", "param"), REFUSED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_refusals_are_the_clients_own_errors(
    robot: openai.OpenAI,
    changes: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
    stream: bool,
) -> None:
    with pytest.raises(KINDS[status]) as caught:
        ask(robot, **{"stream": stream, **changes})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    body: Any = caught.value.body
    assert body["message"].endswith(".") and body["request_id"] == caught.value.request_id


def test_images_elsewhere_are_not_fetched(robot: openai.OpenAI) -> None:
    seen: list[bytes] = []
    with _canary(seen) as port:
        for address in (
            f"http://127.0.0.1:{port}/a.png",
            f"//127.0.0.1:{port}/a.png",
            "file:///etc/hostname",
        ):
            part = {"type": "image_url", "image_url": {"url": address}}
            with pytest.raises(openai.UnprocessableEntityError) as caught:
                ask(robot, [user(part, text())])
            assert caught.value.code == "url_refused"
        assert seen == []
        httpx.get(f"http://127.0.0.1:{port}/a.png", trust_env=False)
        assert seen == [b"/a.png"]  # the canary lives


@contextmanager
def _canary(seen: list[bytes]) -> Iterator[int]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"].encode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def test_other_addresses_refuse_in_the_same_shape(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        for response in (
            client.get("/v1/chat/completions"),
            client.get("/v1/nothing"),
            client.post("/v1/chat/completions", data={"a": "b"}),
            client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}),
        ):
            error = response.json()["error"]
            assert {"message", "type", "param", "code", "request_id"} == set(error) - {"choices"}, error
            assert error["request_id"] == response.headers["x-request-id"]


def test_keys_and_deadlines(checkpoint: Path) -> None:
    with served(checkpoint, api_keys="robot=secret-of-the-robot") as url:
        with opened(url) as client, pytest.raises(openai.AuthenticationError) as unknown:
            ask(client)
        assert (unknown.value.code, unknown.value.type) == ("unauthorized", "authentication_error")
        with opened(url, api_key="secret-of-the-robot") as client:
            assert ask(client).choices
            with pytest.raises(openai.InternalServerError) as late:
                ask(client, extra_body={"timeout_s": 1e-6})
        assert (late.value.status_code, late.value.code, late.value.type) == (
            504,
            "deadline_exceeded",
            "server_error",
        )


def test_many_at_once(url: str) -> None:
    async def all_of_them() -> list[Any]:
        http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", http_client=http_client
        ) as client:
            chats: Any = client.chat.completions
            sent = [[user(text(f"{QUESTION} {number % 2}"), image())] for number in range(8)]
            answers = [chats.create(model=MODEL, messages=answer, max_tokens=4) for answer in sent]
            return await asyncio.gather(*answers)

    answers = [one.choices[0].message.content for one in asyncio.run(all_of_them())]
    assert len(set(answers[::2])) == len(set(answers[1::2])) == 1


def test_an_error_in_a_stream_is_raised_by_the_client() -> None:
    chunks = ChatStream("abc", ANSWER.model, 0, include_usage=False)
    broken = chunk_event(chunks.start()) + chunk_event(
        error_body(ServiceError("deadline_exceeded"), "abc", "/v1/chat/completions")
    )
    reply = httpx.Response(200, content=broken, headers={"content-type": "text/event-stream"})
    http_client: Any = httpx.Client(transport=httpx.MockTransport(lambda _: reply))
    with openai.OpenAI(base_url="http://x/v1", api_key="none", http_client=http_client) as client:
        stream = ask(client, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError) as caught:
            next(stream)
    assert (caught.value.code, caught.value.type) == ("deadline_exceeded", "server_error")


@needs("curl")
def test_curl(url: str, tmp_path: Path) -> None:
    def curl(stream: bool) -> bytes:
        request = tmp_path / "request.json"
        request.write_text(json.dumps({"messages": ASKED, "max_tokens": 8, "stream": stream}))
        command = ["curl", "-sSN", "--noproxy", "*", f"{url}/v1/chat/completions"]
        command += ["-H", "content-type: application/json", "-d", f"@{request}"]
        return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout

    answer = json.loads(curl(stream=False))["choices"][0]["message"]["content"]
    *chunks, (_, end) = read(curl(stream=True))
    assert end == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for _, chunk in chunks]
    assert "".join(deltas) == answer


def test_the_example_runs(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(checkpoint, max_body_mib=8) as url:
        openai_client.main(f"{url}/v1")
    plain, tosa, streamed = capsys.readouterr().out.splitlines()
    assert "16 -> 16 visual tokens" in plain and "16 -> 4 visual tokens" in tosa
    assert streamed.endswith(" tokens)")
