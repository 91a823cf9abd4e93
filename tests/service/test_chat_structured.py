"""Structured answers, several answers and probabilities, as the official openai client reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.service.chats import image, text, user
from tests.service.test_chat_openai import ASKED, ask, opened, served
from tests.vlm.conftest import write_checkpoint

SIDES = ("left", "red", "many")
SPECIAL = re.compile(r"<.+>")


class Where(BaseModel):
    """Where something is."""

    model_config = ConfigDict(extra="forbid")

    side: Literal["left", "red", "many"]


class Box(BaseModel):
    """What stands where; its schema has references."""

    model_config = ConfigDict(extra="forbid")

    at: Where
    also: list[Where]
    said: str | None


TOOL: Any = {"type": "function", "function": {"name": "report", "parameters": Where.model_json_schema()}}
NAMED: Any = {"type": "function", "function": {"name": "report"}}


@pytest.fixture(scope="module", params=["words", "bytes"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a model of whole words, and one whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("structured") / "tiny"
    with served(write_checkpoint(folder, byte_level=request.param == "bytes"), max_queue=24) as url:
        yield url


@pytest.fixture(scope="module")
def robot(url: str) -> Iterator[openai.OpenAI]:
    with opened(url) as client:
        yield client


def schema(model: type[BaseModel] = Where) -> Any:
    named = {"name": "answer", "strict": True, "schema": model.model_json_schema()}
    return {"type": "json_schema", "json_schema": named}


@pytest.mark.parametrize("temperature", [0, 2])
def test_an_answer_comes_back_as_an_object(robot: openai.OpenAI, temperature: float) -> None:
    for seed in range(4):
        done = robot.chat.completions.parse(
            model="tiny",
            messages=ASKED,
            max_tokens=64,
            response_format=Where,
            temperature=temperature,
            seed=seed,
        )
        assert done.choices[0].message.parsed is not None
        assert done.choices[0].message.parsed.side in SIDES and done.choices[0].finish_reason == "stop"


def test_references_and_lists(robot: openai.OpenAI) -> None:
    done = ask(robot, response_format=schema(Box), max_tokens=400, temperature=1, seed=1)
    if done.choices[0].finish_reason == "stop":
        Box.model_validate_json(done.choices[0].message.content)
    else:
        assert done.choices[0].message.content.startswith('{"at": {"side": "')


def test_any_object(robot: openai.OpenAI) -> None:
    content = ask(robot, response_format={"type": "json_object"}, max_tokens=300).choices[0].message.content
    assert content.startswith("{")


def test_a_stream_is_the_same_object(robot: openai.OpenAI) -> None:
    whole = ask(robot, response_format=schema(), max_tokens=64)
    with robot.chat.completions.stream(
        model="tiny", messages=ASKED, max_tokens=64, response_format=Where
    ) as stream:
        for _ in stream:
            pass
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed == Where.model_validate_json(whole.choices[0].message.content)


def test_json_that_is_cut_off_is_the_clients_own_error(robot: openai.OpenAI) -> None:
    class Said(BaseModel):
        model_config = ConfigDict(
            extra="forbid", json_schema_extra={"properties": {"said": {"type": "string", "minLength": 90}}}
        )

        said: str

    with pytest.raises(openai.LengthFinishReasonError):
        robot.chat.completions.parse(model="tiny", messages=ASKED, max_tokens=3, response_format=Said)


@pytest.mark.parametrize(("choice", "why"), [(NAMED, "stop"), ("required", "tool_calls")])
@pytest.mark.parametrize("number", [1, 2])
def test_a_function_is_called(robot: openai.OpenAI, choice: Any, why: str, number: int) -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 64, "n": number}
    whole = ask(robot, **asked)
    assert len(whole.choices) == number
    for at, one in enumerate(whole.choices):
        (call,) = one.message.tool_calls
        assert (one.index, one.message.content, one.finish_reason, call.type) == (at, None, why, "function")
        assert call.function.name == "report" and json.loads(call.function.arguments)["side"] in SIDES
    calls = [one.message.tool_calls[0] for one in whole.choices]
    assert len({call.id for call in calls}) == number
    assert streamed_calls(ask(robot, stream=True, **asked)) == {
        at: (call.function.name, call.function.arguments) for at, call in enumerate(calls)
    }
    history = [
        *ASKED,
        whole.choices[0].message,
        {"role": "tool", "tool_call_id": calls[0].id, "content": "wrong"},
    ]
    assert ask(robot, history, **asked).usage.prompt_tokens > whole.usage.prompt_tokens


def streamed_calls(chunks: Any) -> dict[int, tuple[str, str]]:
    calls: dict[int, tuple[str, str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for delta in choice.delta.tool_calls or []:
                assert delta.index == 0 and (delta.id is None) == (choice.index in calls)
                name, arguments = calls.get(choice.index, (delta.function.name, ""))
                calls[choice.index] = name, arguments + delta.function.arguments
    return calls


def test_one_of_several_functions_is_called(robot: openai.OpenAI, url: str) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": Where.model_json_schema()}}
        for name in SIDES
    ]
    asked: dict[str, Any] = {
        "tools": tools,
        "tool_choice": "required",
        "max_tokens": 128,
        "temperature": 2,
        "seed": 1,
    }
    whole = ask(robot, **asked)
    (call,) = whole.choices[0].message.tool_calls
    assert call.function.name in SIDES and json.loads(call.function.arguments)["side"] in SIDES
    assert streamed_calls(ask(robot, stream=True, **asked)) == {
        0: (call.function.name, call.function.arguments)
    }


def test_functions_that_need_not_be_called_are_not(robot: openai.OpenAI) -> None:
    plain = ask(robot)
    for choice in ("auto", "none"):
        done = ask(robot, tools=[TOOL], tool_choice=choice)
        assert done.choices[0].message.content == plain.choices[0].message.content
        assert done.choices[0].message.tool_calls is None


@pytest.mark.parametrize("number", [1, 3, 8])
def test_several_answers(robot: openai.OpenAI, number: int) -> None:
    plain = ask(robot)
    several = ask(robot, n=number)
    assert [one.index for one in several.choices] == list(range(number))
    assert {one.message.content for one in several.choices} == {plain.choices[0].message.content}
    assert several.usage.prompt_tokens == plain.usage.prompt_tokens
    assert several.usage.completion_tokens == number * plain.usage.completion_tokens
    assert several.batch_size == 1


def test_several_sampled_answers_have_seeds_of_their_own(robot: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"temperature": 2, "max_tokens": 8}
    several = ask(robot, n=3, seed=7, **asked)
    texts = [one.message.content for one in several.choices]
    assert texts == [ask(robot, seed=7 + at, **asked).choices[0].message.content for at in range(3)]
    assert len(set(texts)) == 3
    pieces: dict[int, str] = dict.fromkeys(range(3), "")
    ends: dict[int, str] = {}
    for chunk in ask(robot, n=3, seed=7, stream=True, **asked):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert list(pieces.values()) == texts
    assert ends == {one.index: one.finish_reason for one in several.choices}


@pytest.mark.parametrize("number", [0, 20])
def test_probabilities(robot: openai.OpenAI, number: int) -> None:
    whole = ask(robot, logprobs=True, top_logprobs=number, max_tokens=6)
    content = whole.choices[0].logprobs.content
    assert len(content) == whole.usage.completion_tokens
    pieces = [one.token for one in content if not SPECIAL.fullmatch(one.token)]  # a text leaves them out
    assert "".join(pieces).strip() == whole.choices[0].message.content
    for one in content:
        assert one.logprob <= 0 and len(one.top_logprobs) == number
        assert bytes(one.bytes).decode(errors="replace") == one.token
        ranked = [other.logprob for other in one.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        assert not number or (one.token, one.logprob) == (
            one.top_logprobs[0].token,
            one.top_logprobs[0].logprob,
        )
    chunks = ask(robot, logprobs=True, top_logprobs=number, max_tokens=6, stream=True)
    parts = [choice.logprobs.content for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [one for part in parts for one in part] == content
    assert ask(robot).choices[0].logprobs is None


def test_probabilities_end_where_a_stop_ends_the_answer(robot: openai.OpenAI) -> None:
    whole = ask(robot, logprobs=True, max_tokens=6)
    content = whole.choices[0].logprobs.content
    stop = content[2].token.strip() or content[2].token
    cut = ask(robot, logprobs=True, max_tokens=6, stop=stop)
    assert whole.choices[0].message.content.startswith(cut.choices[0].message.content)
    kept = cut.choices[0].logprobs.content
    assert kept == content[: len(kept)] and len(kept) <= 3  # that of a space before the stop may be there
    chunks = ask(robot, logprobs=True, max_tokens=6, stop=stop, stream=True)
    parts = [choice.logprobs.content for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [one for part in parts for one in part] == kept


LARGE = {"enum": ["x" * 40_000]}
LONG = {"$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}, "$ref": "#/$defs/nowhere"}


@pytest.mark.parametrize(
    ("changes", "param", "word"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": LONG}}},
         "response_format.json_schema.schema", "reference"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": LARGE}}},
         "response_format.json_schema.schema", "32768"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"not": {}}}}],
          "tool_choice": "required"}, "tools[0].function.parameters", "not"),
        ({"n": 9}, "n", "8"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_name_field_and_reason(
    robot: openai.OpenAI, changes: dict[str, Any], param: str, word: str, stream: bool
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        ask(robot, stream=stream, **changes)
    assert caught.value.param == param
    assert param in str(caught.value) and word in str(caught.value)


def test_a_schema_is_refused_before_any_work_of_the_model(url: str, robot: openai.OpenAI) -> None:
    def batches() -> float:
        lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("tosa_vqa_batch_rows_count"))

    before = batches()
    with pytest.raises(openai.UnprocessableEntityError):
        ask(
            robot,
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/b"}}},
        )
    assert batches() == before
    ask(robot, response_format=schema())
    assert batches() == before + 1


def test_long_answers_end_where_the_context_does(robot: openai.OpenAI) -> None:
    """What LangChain, litellm and dspy send by default."""
    (model,) = robot.models.list().data
    for name, number in (("max_tokens", 512), ("max_tokens", 1000), ("max_completion_tokens", 1_000_000)):
        done = ask(robot, **{"max_tokens": openai.omit, name: number})
        assert done.choices[0].finish_reason in ("stop", "length")
        if done.choices[0].finish_reason == "length":
            assert done.usage.total_tokens == model.max_model_len  # type: ignore[attr-defined]


def test_an_operators_limit_ends_answers_too(tmp_path: Path) -> None:
    with served(write_checkpoint(tmp_path / "tiny"), max_answer_tokens=3) as url, opened(url) as client:
        done = ask(client, max_tokens=512)
    assert (done.usage.completion_tokens, done.choices[0].finish_reason) == (3, "length")


def test_many_answers_take_as_many_places(tmp_path: Path) -> None:
    keys = {"api_keys": "robot=secret-of-the-robot", "key_max_in_flight": 2}
    with (
        served(write_checkpoint(tmp_path / "tiny"), max_queue=1, max_batch=2, **keys) as url,
        opened(url, api_key="secret-of-the-robot") as client,
    ):
        assert len(ask(client, n=8).choices) == 8  # more than there are places: it takes all


def test_a_question_with_two_images(robot: openai.OpenAI) -> None:
    done = ask(robot, [user(image(), image(), text())], response_format=schema(), n=2, max_tokens=64)
    assert all(Where.model_validate_json(one.message.content) for one in done.choices)
