"""Whatever a language server does wrong has its own code, and another server is asked where that is right."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.errors.table import CODES
from service.language.faults import KINDS
from tests.language.conftest import ask, served_by, text_of, unready
from tests.language.stub_server import SECRET, Behaviour, Stub, stub_server
from tests.loopback import PATIENCE_S, free_port, wait_for
from tests.service.chats import chat
from tests.service.conftest import Question
from tests.service.live import Live
from tests.service.test_refusals import check
from tests.service.test_streams import events_of
from vlm import Vlm

REFUSALS = {
    400: "language_refused",
    401: "language_key_refused",
    403: "language_key_refused",
    404: "language_wrong_model",
    307: "language_refused",
    422: "language_refused",
    429: "language_busy",
    500: "language_failed",
    501: "language_failed",
    502: "language_restarting",
    503: "language_restarting",
    504: "language_restarting",
}
BROKEN = {
    "cut": "language_cut",
    "half": "language_incomplete",
    "abort": "language_incomplete",
    "garbled": "language_garbled",
    "beyond": "language_garbled",
    "error": "language_failed",
    "oom": "language_out_of_memory",
}


@pytest.fixture(scope="module")
def both(checkpoint: Path, stub: Stub, other: Stub) -> Iterator[Live]:
    with served_by(checkpoint, stub, other) as served:
        wait_for(lambda: up(served) == 2)
        yield served


def up(served: Live) -> int:
    return sum(server.fault is None for server in servers(served))


def batches(served: Live) -> float:
    """Count the batches of the model thread."""
    lines = served.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tosa_vqa_batches_total{"))


def servers(served: Live) -> tuple[Any, ...]:
    return served.state.engine.language._servers.all  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _all_up_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test begins with servers that answer."""
    for name in ("apart", "both"):
        if name in request.fixturenames:
            served = request.getfixturevalue(name)
            wait_for(lambda served=served: up(served) == len(servers(served)))
    yield


def test_every_code_of_the_servers_is_in_the_table_and_has_what_follows() -> None:
    codes = {code for code in CODES if code.startswith("language_")} - {"language_unsupported"}
    assert set(KINDS) == codes | {"numerical_error"}
    assert len({CODES[code].sentence for code in codes}) == len(codes)


@pytest.mark.parametrize(("status", "code"), REFUSALS.items())
def test_every_status_has_its_code(
    apart: Live, stub: Stub, question: Question, status: int, code: str
) -> None:
    stub.behaviour = Behaviour(status=status, words="secret words")
    response = question.post(apart.client, "json")
    check(response, CODES[code].status, code)
    wanted = KINDS[code].retry_after_s
    assert response.headers.get("Retry-After") == (None if wanted is None else str(wanted))
    assert "secret words" not in response.text and stub.url not in response.text
    assert "/elsewhere" not in stub.asked, "no redirect is followed"


@pytest.mark.parametrize(
    "words", ["CUDA out of memory. Tried to allocate", "std::bad_alloc: allocation failed"]
)
def test_memory_that_runs_out_there_has_a_code_of_its_own(
    apart: Live, stub: Stub, question: Question, words: str
) -> None:
    stub.behaviour = Behaviour(status=500, words=words)
    check(question.post(apart.client, "json"), 503, "language_out_of_memory")


def test_a_server_says_itself_when_to_come_again(apart: Live, stub: Stub, question: Question) -> None:
    stub.behaviour = Behaviour(status=429, headers={"Retry-After": "17"})
    assert question.post(apart.client, "json").headers["Retry-After"] == "17"


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(("how", "code"), BROKEN.items())
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_is_never_shown_as_whole(
    apart: Live, stub: Stub, question: Question, how: str, code: str, after: int, stream: bool
) -> None:
    stub.behaviour = Behaviour(how=how, fails_after=after)
    response = question.but(max_new_tokens=12, stream=stream).post(apart.client, "json")
    if stream and after:
        (*texts, (name, data)) = events_of(response.text)
        assert name == "error" and data["error"]["code"] == code and texts
    else:
        check(response, CODES[code].status, code)
    wait_for(lambda: apart.in_flight == 0)


def test_nan_there_never_becomes_text(apart: Live, stub: Stub) -> None:
    stub.behaviour = Behaviour(how="nan", fails_after=2)
    response = apart.client.post("/v1/chat/completions", json=chat(logprobs=True, max_tokens=9))
    assert response.status_code == 500 and response.json()["error"]["code"] == "numerical_error"


def test_a_silent_server_is_not_waited_for_without_end(
    checkpoint: Path, stub: Stub, other: Stub, question: Question
) -> None:
    with served_by(checkpoint, stub, language_timeout_s=0.4) as served:
        stub.behaviour = Behaviour(how="silence", fails_after=2)
        check(question.but(max_new_tokens=9).post(served.client, "json"), 504, "language_slow")
        wait_for(lambda: stub.running == 0)


@pytest.mark.parametrize("behaviour", [
    *(Behaviour(status=status) for status in (401, 404, 429, 500, 503)),
    *(Behaviour(how=how, fails_after=3) for how in BROKEN),
])  # fmt: skip
def test_another_server_is_asked_when_nothing_was_shown(
    here: Live, both: Live, stub: Stub, other: Stub, question: Question, behaviour: Behaviour
) -> None:
    stub.behaviour = behaviour
    for text in range(3):  # of which some would go to each server
        changes = {"max_new_tokens": 12, "keep_ratio": 0.3 + text / 10, "method": "tome"}
        truth = ask(here, question, **changes)
        assert ask(both, question, **changes) == truth
    assert other.answered >= 1


def test_a_prompt_that_one_server_refuses_is_not_carried_to_the_next(
    both: Live, stub: Stub, other: Stub, question: Question
) -> None:
    stub.behaviour = other.behaviour = Behaviour(status=400)
    check(question.post(both.client, "json"), 502, "language_refused")
    assert stub.answered + other.answered == 1


def test_a_stream_that_has_begun_is_not_begun_again(
    both: Live, stub: Stub, other: Stub, question: Question
) -> None:
    stub.behaviour = other.behaviour = Behaviour(how="cut", fails_after=3)
    response = question.but(max_new_tokens=12, stream=True).post(both.client, "json")
    (*texts, (name, data)) = events_of(response.text)
    assert name == "error" and data["error"]["code"] == "language_cut" and texts
    assert stub.answered + other.answered == 1


def test_a_stream_that_has_shown_nothing_goes_on_elsewhere(
    here: Live, both: Live, stub: Stub, other: Stub, question: Question
) -> None:
    request = question.but(max_new_tokens=12, stream=True)
    truth = events_of(request.post(here.client, "json").text)
    for one in (stub, other):
        one.behaviour = Behaviour(how="cut", fails_after=0)
        got = events_of(request.post(both.client, "json").text)
        assert text_of(got) == text_of(truth)
        one.behaviour = Behaviour()
        wait_for(lambda: up(both) == 2)


def test_when_no_server_answers_the_fault_of_the_last_is_told(
    both: Live, stub: Stub, other: Stub, question: Question
) -> None:
    stub.behaviour = other.behaviour = Behaviour(how="half", fails_after=1)
    check(question.but(max_new_tokens=9).post(both.client, "json"), 503, "language_incomplete")
    assert stub.answered == other.answered == 1


def test_a_server_that_is_not_there_makes_the_service_unready_and_costs_no_encoding(
    checkpoint: Path, whole: Vlm, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub_server(whole) as stub, served_by(checkpoint, stub) as served:
        assert question.post(served.client, "json").status_code == 200
        stub.kill()
        wait_for(lambda: served.client.get("/readyz").status_code == 503)
        check(served.client.get("/readyz"), 503, "language_down")
        before = batches(served)
        response = question.post(served.client, "json")
        check(response, 503, "language_down")
        assert int(response.headers["Retry-After"]) >= 1
        assert batches(served) == before > 0
        assert response.json()["error"]["message"] == CODES["language_down"].sentence
        refused = question.but(images=(b"no image",)).post(served.client, "json")
        check(refused, 503, "language_down")  # nothing was decoded
        assert served.client.get("/livez").status_code == 200
        stub.start()
        wait_for(lambda: served.client.get("/readyz").status_code == 200)
        assert question.post(served.client, "json").status_code == 200


def test_a_killed_server_under_load_loses_nobody(
    checkpoint: Path, whole: Vlm, stub: Stub, question: Question
) -> None:
    """Everybody gets an answer or a code; those that had seen nothing are answered by the other server."""
    asked = [question.but(max_new_tokens=8, keep_ratio=0.2 + n / 50, method="tome") for n in range(24)]
    with stub_server(whole) as dying, served_by(checkpoint, stub, dying, max_queue=32) as served:
        wait_for(lambda: up(served) == 2)
        dying.behaviour = stub.behaviour = Behaviour(holds_at=3)
        with ThreadPoolExecutor(24) as pool:
            waiting = [pool.submit(one.post, served.client, "json") for one in asked]
            wait_for(lambda: dying.running > 0 and dying.running + stub.running == len(asked))
            dying.kill()
            stub.go.set()
            responses = [one.result(PATIENCE_S) for one in waiting]
        assert {one.status_code for one in responses} == {200}
        assert up(served) == 1 and served.in_flight == 0
        dying.behaviour = Behaviour()
        dying.start()
        wait_for(lambda: up(served) == 2)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour(models=("another",)), "language_wrong_model"),
        (Behaviour(key="another"), "language_key_refused"),
        (Behaviour(health=503), "language_restarting"),
    ],
)
def test_readiness_says_what_is_wrong_from_the_beginning(
    checkpoint: Path, whole: Vlm, behaviour: Behaviour, code: str
) -> None:
    with stub_server(whole) as stub:
        stub.behaviour = behaviour
        settings = {"language_model": "tiny-language", "language_api_key": SECRET}
        with unready(checkpoint, stub.url, **settings) as client:
            wait_for(lambda: client.get("/readyz").json().get("error", {}).get("code") == code)
            stub.behaviour = Behaviour(key=SECRET)
            wait_for(lambda: client.get("/readyz").status_code == 200)


def test_a_server_that_comes_later_is_found(checkpoint: Path, whole: Vlm) -> None:
    stub = Stub(whole)
    with unready(checkpoint, stub.url) as client:
        wait_for(lambda: client.get("/readyz").json().get("error", {}).get("code") == "language_down")
        stub.start()
        wait_for(lambda: client.get("/readyz").status_code == 200)
    stub.stop()


def test_neither_the_key_nor_the_question_comes_into_the_log(
    checkpoint: Path, stub: Stub, question: Question, caplog: pytest.LogCaptureFixture
) -> None:
    stub.behaviour = Behaviour(key=SECRET)
    caplog.set_level(logging.INFO)
    with served_by(checkpoint, stub, language_api_key=SECRET) as served:
        assert question.but(question="purple elephants ?").post(served.client, "json").status_code == 200
        stub.behaviour = Behaviour(key="another")
        check(question.post(served.client, "json"), 502, "language_key_refused")
        assert SECRET not in repr(served.state.settings)
    assert all(
        SECRET not in one.getMessage() and "elephant" not in one.getMessage() for one in caplog.records
    )
    assert any("language_key_refused" in one.getMessage() for one in caplog.records), "and the reason does"


def test_proxies_of_the_environment_are_not_asked(
    checkpoint: Path, stub: Stub, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with served_by(checkpoint, stub) as served:
        assert question.post(served.client, "json").status_code == 200


def test_a_healthy_server_is_not_out_for_a_failed_prompt(apart: Live, stub: Stub, question: Question) -> None:
    stub.behaviour = Behaviour(status=500)
    check(question.post(apart.client, "json"), 502, "language_failed")
    assert up(apart) == 1
    stub.behaviour = Behaviour()
    assert question.post(apart.client, "json").status_code == 200


def test_the_service_ends_with_answers_open(checkpoint: Path, stub: Stub, question: Question) -> None:
    stub.behaviour = Behaviour(holds_at=1)
    with ThreadPoolExecutor(1) as pool:
        with served_by(checkpoint, stub, drain_timeout_s=0.1) as served:
            waiting = pool.submit(question.but(max_new_tokens=9, timeout_s=20).post, served.client, "json")
            wait_for(lambda: stub.running == 1)
            assert served.state.engine.close(PATIENCE_S)
            response = waiting.result(PATIENCE_S)
        check(response, 503, "not_ready")
    stub.go.set()
