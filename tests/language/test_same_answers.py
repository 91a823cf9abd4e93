"""With language servers a client gets the answers, the streams and the probabilities of the model here."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.language.conftest import ask, same, served_by, text_of
from tests.language.stub_server import Behaviour, Stub
from tests.service.chats import chat
from tests.service.conftest import Question
from tests.service.live import Live
from tests.service.test_streams import events_of
from vlm import load_vlm

QUESTIONS = ("how many cubes ?", "is the red one left ?", "many ?", "the the the red cubes of the one ?")


@pytest.mark.parametrize("method", ["none", "tome", "tosa", "cubist"])
@pytest.mark.parametrize("text", QUESTIONS)
def test_an_answer_is_the_same(here: Live, apart: Live, question: Question, method: str, text: str) -> None:
    changes = {"question": text, "method": method, "max_new_tokens": 12}
    assert ask(apart, question, **changes) == ask(here, question, **changes)


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("most", [1, 2, 24])
def test_a_stream_says_the_same(
    here: Live, apart: Live, stub: Stub, question: Question, together: int, most: int
) -> None:
    """Also where one event brings several tokens, as a busy server sends them.

    Tokens that arrive together may come in one piece.
    """
    stub.behaviour = Behaviour(together=together)
    streamed = question.but(stream=True, max_new_tokens=most)
    ours, theirs = (events_of(streamed.post(one.client, "json").text) for one in (here, apart))
    assert text_of(theirs) == text_of(ours)
    assert same(theirs[-1][1]) == same(ours[-1][1])
    if most > 1:
        assert [name for name, _ in theirs[:-1]] == ["text"] * (len(theirs) - 1) and len(theirs) > 1


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_draws_the_same(here: Live, apart: Live, question: Question, seed: int) -> None:
    """The stub draws as the model here does; a server of vllm repeats its own draws."""
    changes = {"temperature": 1.5, "top_p": 0.9, "seed": seed, "max_new_tokens": 16}
    assert ask(apart, question, **changes) == ask(here, question, **changes)


def test_chat_with_choices_probabilities_and_stops(here: Live, apart: Live) -> None:
    whole = say(here, n=3, temperature=1.2, seed=5, max_tokens=16, logprobs=True, top_logprobs=4)
    words = whole["choices"][0]["message"]["content"].split()
    for more in ({}, {"stop": [words[1]]}, {"stop": [words[2], words[0] + " " + words[1]]}):
        fields: dict[str, Any] = {"n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 16, **more}
        fields |= {"logprobs": True, "top_logprobs": 4}
        assert close(same(say(apart, **fields)), same(say(here, **fields)))


def say(served: Live, status: int = 200, **fields: Any) -> dict[str, Any]:
    response = served.client.post("/v1/chat/completions", json=chat(**fields))
    assert response.status_code == status, response.text
    return response.json()


def close(one: Any, other: Any) -> bool:
    """Compare, with numbers equal to rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-4)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == other


def test_a_comparison_is_the_same(here: Live, apart: Live, question: Question) -> None:
    specs = [{"method": "none"}, {"method": "tome", "keep_ratio": 0.5}, {"method": "cubist"}]
    ours, theirs = (
        question.but(specs=specs).post(one.client, "json", "/vqa/compare").json() for one in (here, apart)
    )
    assert [one["answer"] for one in theirs["results"]] == [one["answer"] for one in ours["results"]]
    assert theirs["agree"] == ours["agree"]


def test_many_at_once_get_their_own_answers(
    here: Live, checkpoint: Path, stub: Stub, question: Question
) -> None:
    asked = [question.but(question=text, max_new_tokens=n) for text in QUESTIONS for n in (1, 5, 9, 13)]
    truth = [same(one.post(here.client, "json").json()) for one in asked]
    with served_by(checkpoint, stub, max_queue=16) as apart, ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda one: same(one.post(apart.client, "json").json()), asked))
    assert got == truth


def test_an_answer_ends_where_the_context_of_the_server_ends(
    checkpoint: Path, stub: Stub, question: Question
) -> None:
    stub.behaviour = Behaviour(max_model_len=None)
    with served_by(checkpoint, stub) as free:
        long = ask(free, question, max_new_tokens=300, seed=3, temperature=2)
    tokens = long["usage"]["prompt_tokens"]
    stub.behaviour = Behaviour(max_model_len=tokens + 4)
    with served_by(checkpoint, stub) as narrow:
        short = ask(narrow, question, max_new_tokens=300, seed=3, temperature=2)
        assert short["finish_reason"] == "length" and short["usage"]["completion_tokens"] == 4
        assert stub.requests[-1]["max_tokens"] == 4
    stub.behaviour = Behaviour(max_model_len=tokens)
    with served_by(checkpoint, stub) as full:
        response = question.post(full.client, "json")
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["limit"]) == (422, "prompt_too_long", tokens - 1)


def test_what_no_server_can_do_is_refused_with_the_field(apart: Live, stub: Stub) -> None:
    response = say(apart, status=422, response_format={"type": "json_object"})
    assert response["error"]["code"] == "language_unsupported"
    assert response["error"]["param"] == "response_format" and stub.answered == 0


def test_the_request_says_all_that_a_server_would_take_from_elsewhere(
    apart: Live, stub: Stub, question: Question
) -> None:
    ask(apart, question, max_new_tokens=3)
    (sent,) = [one for one in stub.requests if one.get("stream")]
    assert "prompt" not in sent and sent["max_tokens"] == 3 and sent["ignore_eos"] is True
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (0, 1, 0, 0)
    assert sent["repetition_penalty"] == 1 and sent["presence_penalty"] == sent["frequency_penalty"] == 0
    assert set(sent["stop_token_ids"]) == set(load_vlm(apart.state.settings.model).eos_token_ids)
    assert "cache_salt" not in sent and "seed" not in sent and "logprobs" not in sent


def test_timings_have_the_stage_of_the_servers_and_add_up(
    here: Live, apart: Live, stub: Stub, question: Question
) -> None:
    assert "language_queue" not in question.post(here.client, "json").json()["timings_ms"]
    stub.behaviour = Behaviour(queue_ms=0.001)
    timings = question.post(apart.client, "json").json()["timings_ms"]
    total = timings.pop("total")
    assert timings["language_queue"] > 0 and timings["prefill"] > 0 and timings["generate"] is not None
    assert sum(value for value in timings.values() if value is not None) == pytest.approx(total, abs=0.01)
    stub.behaviour = Behaviour(queue_ms=1e9)
    timings = question.post(apart.client, "json").json()["timings_ms"]
    assert timings["prefill"] == 0, "a server cannot have waited longer than it took"


def test_metrics_count_what_servers_say(apart: Live, stub: Stub, question: Question) -> None:
    def counted(name: str) -> float:
        lines = apart.client.get("/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"tosa_vqa_{name} ")))

    ask(apart, question)
    before = counted('language_answers_total{outcome="ok"}')
    hits = counted('language_prompt_tokens_total{result="hit"}')
    ask(apart, question)
    assert counted('language_answers_total{outcome="ok"}') == before + 1
    assert counted('language_prompt_tokens_total{result="hit"}') == hits + 16
    assert counted("language_servers_up") == 1 and counted("language_running") == 0


def test_a_service_with_its_own_model_shows_nothing_of_servers(here: Live) -> None:
    assert "tosa_vqa_language" not in here.client.get("/metrics").text
    assert "language_queue" not in json.dumps(here.client.get("/readyz").json())


def test_caches_of_keys_stay_apart_there_too(checkpoint: Path, stub: Stub, question: Question) -> None:
    with served_by(checkpoint, stub, api_keys="one=secret-of-one,two=secret-of-two") as served:

        def salt(key: str, **changes: Any) -> str:
            request = question.but(**changes)
            response = request.post(_Keyed(served, key), "json")
            assert response.status_code == 200
            return stub.requests[-1]["cache_salt"]

        one, two = salt("secret-of-one"), salt("secret-of-two")
        assert one == salt("secret-of-one") != two
        assert len({salt("secret-of-one", cache=False) for _ in range(3)} | {one, two}) == 5
        assert "secret" not in one and "one" not in one


class _Keyed:
    """Post with an API key."""

    def __init__(self, served: Live, key: str) -> None:
        self._client, self._headers = served.client, {"Authorization": f"Bearer {key}"}

    def post(self, url: str, **given: Any) -> Any:
        return self._client.post(url, headers=self._headers, **given)
