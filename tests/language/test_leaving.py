"""Who leaves, or waits no longer, ends the answer at the server; and nobody waits for another's answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from service.language import vllm
from service.language.servers import Server
from service.language.wire import Received
from tests.language.conftest import ask, served_by
from tests.language.stub_server import Behaviour, Stub
from tests.loopback import PATIENCE_S, wait_for
from tests.service.chats import chat
from tests.service.conftest import Question
from tests.service.live import Live, raw_question, read_until
from tests.service.test_refusals import check
from vlm import GeneratedSequence, GenerationParams


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_aborts_there(apart: Live, stub: Stub, question: Question, stream: bool) -> None:
    stub.behaviour = Behaviour(holds_at=4)
    with apart.connect() as connection:
        connection.sendall(raw_question(question.but(max_new_tokens=200, stream=stream)))
        wait_for(lambda: stub.running == 1)
        if stream:
            read_until(connection, b"event: text")
    stub.go.set()
    wait_for(lambda: apart.in_flight == 0 and stub.running == 0)
    assert stub.aborted == 1
    wait_for(lambda: apart.state.engine.language.running == 0)  # type: ignore[union-attr]


def test_a_deadline_aborts_there(apart: Live, stub: Stub, question: Question) -> None:
    stub.behaviour = Behaviour(holds_at=4)
    for timeout_s in (0.5, 3, 30):
        check(
            question.but(max_new_tokens=200, timeout_s=timeout_s).post(apart.client, "json"),
            504,
            "deadline_exceeded",
        )
        if stub.answered:
            break
    assert stub.answered
    stub.go.set()
    wait_for(lambda: stub.running == 0 and apart.in_flight == 0)
    assert stub.aborted >= 1


def test_a_stop_sequence_aborts_there(here: Live, apart: Live, stub: Stub) -> None:
    fields = {"max_tokens": 200, "temperature": 2, "seed": 1}
    whole = here.client.post("/v1/chat/completions", json=chat(**fields)).json()
    stop = whole["choices"][0]["message"]["content"].split()[3]
    answers = [
        one.client.post("/v1/chat/completions", json=chat(**fields, stop=[stop])).json()
        for one in (here, apart)
    ]
    assert answers[0]["choices"] == answers[1]["choices"]
    wait_for(lambda: stub.running == 0)
    assert stub.aborted == 1, "the server does not write what nobody reads"


def test_200_departures_leave_nothing_running(checkpoint: Path, stub: Stub, question: Question) -> None:
    raw = [raw_question(question.but(stream=one, max_new_tokens=60)) for one in (False, True)]

    def leave(served: Live, seed: int) -> None:
        own = random.Random(seed)
        with served.connect() as connection:
            connection.sendall(raw[seed % 2])
            time.sleep(own.uniform(0, 0.1))

    with served_by(checkpoint, stub, frame_cache_mib=8) as served:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: leave(served, seed), range(200)))
        language = served.state.engine.language
        assert language is not None
        wait_for(lambda: served.in_flight == 0 and stub.running == 0 and language.running == 0)
        assert question.post(served.client, "json").status_code == 200


def test_an_answer_that_is_given_up_closes_what_it_was_read_from() -> None:
    """In the same task: the collector closes what is left open at any time, also in the middle of a read."""
    params = GenerationParams(max_new_tokens=10**6)
    answer = Received(GeneratedSequence(0, 1), params, 10**6, 100, frozenset({5}))
    closed: list[object] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b'data: {"choices": [{"token_ids": [7], "finish_reason": null}]}\n\n' * 9
        finally:
            closed.append(asyncio.current_task())

    @asynccontextmanager
    async def stream(url: str, body: bytes) -> AsyncIterator[Any]:
        yield SimpleNamespace(aiter_raw=pieces)

    async def give_up() -> bool:
        form = SimpleNamespace(path="", event=dict)
        language: Any = SimpleNamespace(_client=SimpleNamespace(stream=stream), _form=form)
        listener: Any = Mock(take=lambda *_: False)
        following = vllm.VllmLanguage._follow(language, Server("http://x"), b"", answer, listener)
        task = asyncio.create_task(following)
        while not answer.row.token_ids and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return closed == [task]

    assert asyncio.run(give_up())


def test_the_next_pictures_are_encoded_while_answers_are_written(
    checkpoint: Path, here: Live, stub: Stub, question: Question
) -> None:
    """The pipeline: no answer is there yet, and all pictures are encoded and their prompts sent."""
    asked = [question.but(max_new_tokens=8, keep_ratio=0.3 + n / 20, method="tome") for n in range(6)]
    truth = [one.post(here.client, "json").json()["answer"] for one in asked]
    with served_by(checkpoint, stub, max_batch=1, max_queue=8) as served, ThreadPoolExecutor(6) as pool:
        stub.behaviour = Behaviour(holds_at=0)
        waiting = [pool.submit(one.post, served.client, "json") for one in asked]
        wait_for(lambda: stub.running == 6)
        assert not any(one.done() for one in waiting)
        assert served.in_flight == 6, "places are held until the answers are there"
        assert served.state.engine.model_thread.running == 0
        stub.go.set()
        assert [one.result(PATIENCE_S).json()["answer"] for one in waiting] == truth
    assert stub.most_running == 6


def test_text_comes_while_the_server_still_writes(apart: Live, stub: Stub, question: Question) -> None:
    stub.behaviour = Behaviour(holds_at=5)
    with apart.connect() as connection:
        connection.sendall(raw_question(question.but(stream=True, max_new_tokens=12)))
        read_until(connection, b"event: text")
        assert stub.running == 1
        stub.go.set()
        read_until(connection, b"event: answer")


def test_a_second_question_about_a_picture_encodes_nothing_and_goes_to_its_server(
    checkpoint: Path, stub: Stub, other: Stub, question: Question
) -> None:
    with served_by(checkpoint, stub, other, frame_cache_mib=8) as served:
        servers = served.state.engine.language._servers  # type: ignore[union-attr]
        wait_for(lambda: servers.up == 2)
        for ratio in (0.3, 0.5, 0.7, 0.9):
            before = stub.answered, other.answered
            for text in ("how many cubes ?", "is the red one left ?", "many ?"):
                ask(served, question, question=text, method="tome", keep_ratio=ratio)
            more = stub.answered - before[0], other.answered - before[1]
            assert sorted(more) == [0, 3]


def test_an_answer_that_is_there_does_not_wait_for_what_follows(
    apart: Live, stub: Stub, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never ends its response delays the answer by LAST_EVENTS_S and no longer."""
    monkeypatch.setattr(vllm, "LAST_EVENTS_S", 0.05)
    stub.behaviour = Behaviour(lingers=True)
    assert question.but(max_new_tokens=3).post(apart.client, "json").status_code == 200
    wait_for(lambda: stub.running == 0)
