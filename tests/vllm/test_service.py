"""Our service in front of a real vLLM server: schemas, clients that leave, and a server that is killed."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest

from service.errors.table import CODES
from service.language.faults import KINDS
from tests.language.conftest import same, unready
from tests.language.test_same_answers import say
from tests.language.test_schemas import SIDE, TOOLS, content, formed
from tests.loopback import PATIENCE_S, START_S, wait_for
from tests.service.conftest import Question
from tests.service.conftest import form as form
from tests.service.conftest import question as question
from tests.service.live import Live, live, raw_question
from tests.vllm.client import KEY, busy
from tests.vllm.speller import Speller
from tests.vlm.test_vlm_grammar import BYTES

pytestmark = pytest.mark.vllm
LEAVING, AT_ONCE = 200, 40
ASKING = 24
LONG = 4_000
"""Tokens of an answer that goes on while a test does something about it."""


@pytest.fixture(scope="module")
def here(speller: Speller) -> Iterator[Live]:
    with live(speller.checkpoint) as served:
        yield served


@pytest.fixture(scope="module")
def apart(speller: Speller) -> Iterator[Live]:
    settings: dict[str, Any] = {
        "language_urls": speller.serving.url,
        "language_probe": str(speller.language),
        "language_timeout_s": START_S,
        "language_api_key": KEY,
    }
    with live(
        speller.checkpoint, language="vllm", max_queue=LEAVING, max_batch=8, frame_cache_mib=8, **settings
    ) as served:
        yield served


@pytest.mark.parametrize("settings", [{}, {"language_api_key": "of-somebody-else"}], ids=["none", "wrong"])
def test_without_its_key_a_server_is_not_used(speller: Speller, settings: dict[str, str]) -> None:
    with unready(speller.checkpoint, speller.serving.url, **settings) as client:
        wait_for(lambda: client.get("/readyz").json().get("error", {}).get("code") == "language_key_refused")


@contextmanager
def endless(served: Live) -> Iterator[None]:
    """Let no token end an answer, so that only its length does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served.state.engine.language, "_eos", frozenset())
        yield


@pytest.mark.parametrize(("schema", "fits"), BYTES, ids=[str(schema)[:40] for schema, _ in BYTES])
def test_an_answer_with_a_schema_is_that_of_torch(here: Live, apart: Live, schema: Any, fits: Any) -> None:
    answer = say(apart, **formed(schema))
    assert fits(content(answer)) and same(answer) == same(say(here, **formed(schema)))
    for seed in range(4):
        drawn = say(apart, **formed(schema), temperature=2, seed=seed)
        assert fits(content(drawn)) and drawn["choices"][0]["finish_reason"] == "stop"


def test_a_function_is_called(here: Live, apart: Live) -> None:
    asked = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 96, "n": 2}
    ours, theirs = ([one["message"]["tool_calls"][0] for one in say(served, **asked)["choices"]]
                    for served in (here, apart))  # fmt: skip
    assert [one["function"] for one in theirs] == [one["function"] for one in ours]
    assert json.loads(theirs[0]["function"]["arguments"])["side"] in ("left", "red", "many")


def test_many_with_and_without_a_schema_share_the_server(here: Live, apart: Live) -> None:
    asked = [formed(schema) if at % 2 else {"max_tokens": 12} for at, (schema, _) in enumerate(BYTES * 3)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda fields: same(say(apart, **fields)), asked))
    truth = {json.dumps(fields): same(say(here, **fields)) for fields in asked}
    assert found == [truth[json.dumps(fields)] for fields in asked]


def test_200_clients_that_leave_in_mid_answer_leave_nothing_running(
    speller: Speller, here: Live, apart: Live, question: Question
) -> None:
    asked = raw_question(question.but(stream=True, max_new_tokens=LONG))
    with endless(apart), ExitStack() as open_connections:
        for _ in range(0, LEAVING, AT_ONCE):
            group = [open_connections.enter_context(apart.connect()) for _ in range(AT_ONCE)]
            for connection in group:
                connection.sendall(asked)
            assert all(map(_has_text, group))
        assert apart.in_flight == LEAVING and busy(speller.serving.url) > LEAVING / 2
    language = apart.state.engine.language
    assert language is not None
    wait_for(lambda: apart.in_flight == language.running == 0)
    wait_for(lambda: busy(speller.serving.url) == 0)
    assert _answer(apart, question) == _answer(here, question)


def _has_text(connection: socket.socket) -> bool:
    received = b""
    while b"event: text" not in received:
        piece = connection.recv(1 << 16)
        assert piece, received
        received += piece
    return True


def test_a_killed_server_answers_nobody_wrongly_and_another_one_takes_over(
    speller: Speller, here: Live, apart: Live, question: Question
) -> None:
    asked = question.but(max_new_tokens=LONG, timeout_s=100)
    with endless(apart), ThreadPoolExecutor(ASKING) as pool:
        waiting = [pool.submit(_ending, apart, asked.but(stream=at % 2 == 0)) for at in range(ASKING)]
        wait_for(lambda: busy(speller.serving.url) == apart.in_flight == ASKING)
        _kill(speller)
        ends = Counter(one.result(PATIENCE_S) for one in waiting)
    assert set(ends) <= {"language_cut", "language_down"} and ends["language_cut"] > 0, ends
    wait_for(lambda: apart.in_flight == 0)
    wait_for(lambda: _code(apart.client.get("/readyz")) == "language_down")
    assert _ending(apart, question) == "language_down"
    with speller.again():
        wait_for(lambda: apart.client.get("/readyz").status_code == 200, START_S)
        assert _answer(apart, question) == _answer(here, question)
        assert same(say(apart, **formed(SIDE))) == same(say(here, **formed(SIDE)))


def _kill(speller: Speller) -> None:
    """Kill the server and all its processes, by id, as the kernel does when memory runs out."""
    tree = speller.serving.tree()
    assert len(tree) > 1, "the engine is a process of its own"
    for one in tree:
        one.kill()
    psutil.wait_procs(tree[1:], PATIENCE_S)


def _ending(served: Live, question: Question) -> str:
    """Ask and return how it ends: with an answer, or with a code, whose error says all that it should."""
    response = question.post(served.client, "json")
    if response.status_code != 200:
        code = _code(response)
        assert response.status_code == CODES[code].status
        again = KINDS[code].retry_after_s
        assert again is None or int(response.headers["Retry-After"]) >= 1
        return code
    if not question.fields.get("stream"):
        return "answer" if response.json()["finish_reason"] else "no end"
    name, _, data = response.text.strip().split("\n\n")[-1].partition("\n")
    return {"event: answer": "answer"}.get(name) or json.loads(data.removeprefix("data: "))["error"]["code"]


def _code(response: httpx.Response) -> str:
    return response.json().get("error", {}).get("code", "")


def _answer(served: Live, question: Question) -> dict[str, Any]:
    response = question.but(max_new_tokens=24).post(served.client, "json")
    assert response.status_code == 200, response.text
    return same(response.json())
