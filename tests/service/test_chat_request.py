"""POST /v1/chat/completions, the request: what is read, what is only tolerated, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from service.api.chat.request import (
    HARMLESS,
    LEAST_TOP_P,
    LENGTH_NAMES,
    MAX_STOPS,
    QUESTIONS_LONG,
    ChatRequest,
    parse_chat,
)
from service.errors import ServiceError
from service.request.schemas import LONGEST_ANSWER, MERGE_FIELDS, TARGETS, VqaFields
from service.settings import Settings
from tests.service.chats import QUESTION, body, chat, depth, image, text, uri, user
from tests.service.files import DEPTH, IMAGE
from tosa import UnknownMethod
from vlm import Turn
from vlm.sampling import Sampler

SETTINGS = Settings(model="/models/tiny", max_images=3, max_question_chars=40, max_answer_tokens=64)
SYSTEM = {"role": "system", "content": "Be brief."}


def parse(request: Any, settings: Settings = SETTINGS) -> ChatRequest:
    return parse_chat(body(request), settings)


def refused(request: Any, settings: Settings = SETTINGS) -> tuple[str, str | None]:
    with pytest.raises((ServiceError, UnknownMethod)) as caught:
        parse(request, settings)
    return caught.value.code, caught.value.field


def test_a_plain_question() -> None:
    read = parse(chat())
    assert read.vqa_request.turns == (Turn("user", (QUESTION, None)),)
    assert (read.vqa_request.images, read.vqa_request.depths) == ((IMAGE,), ())
    assert read.vqa_request.fields.model_dump(exclude_unset=True) == {
        "question": QUESTION,
        "max_new_tokens": 4,
    }
    assert (read.stream, read.include_usage, read.model, read.stop) == (False, False, None, ())


def test_a_conversation_keeps_its_order() -> None:
    read = parse(
        chat(
            {"role": "developer", "content": [text("Be brief.")]},
            user(image(), text("what is it ?"), image(b"two")),
            {"role": "assistant", "content": "a cube", "refusal": None, "tool_calls": None, "audio": None},
            {"role": "user", "content": "and the colour ?", "name": "robot"},
        )
    )
    assert read.vqa_request.turns == (
        Turn("system", ("Be brief.",)),
        Turn("user", (None, "what is it ?", None)),
        Turn("assistant", ("a cube",)),
        Turn("user", ("and the colour ?",)),
    )
    assert read.vqa_request.images == (IMAGE, b"two")
    assert read.vqa_request.fields.question == "and the colour ?"


def test_the_question_is_the_last_text_of_the_user() -> None:
    given = chat(user(text("one")), user(text("two"), text("three")), user(image()), SYSTEM)
    assert parse(given).vqa_request.fields.question == "two three"


def test_fields_of_the_answer() -> None:
    read = parse(
        chat(
            model="tiny",
            max_tokens=3,
            max_completion_tokens=5,
            temperature=1,
            top_p=0.5,
            seed=7,
            stop=["\n", "."],
            stream=True,
            stream_options={"include_usage": True},
            timeout_s=2.5,
            cache=False,
        )
    )
    fields = read.vqa_request.fields
    assert (fields.max_new_tokens, fields.temperature, fields.top_p, fields.seed) == (5, 1, 0.5, 7)
    assert (fields.timeout_s, fields.cache, fields.stream) == (2.5, False, True)
    assert (read.stream, read.include_usage, read.model, read.stop) == (True, True, "tiny", ("\n", "."))


@pytest.mark.parametrize("name", LENGTH_NAMES)
def test_answers_may_be_as_long_as_the_context_leaves(name: str) -> None:
    assert parse(chat(max_tokens=...)).vqa_request.fields.max_new_tokens == LONGEST_ANSWER
    for number in (512, 1024, 1_000_000, LONGEST_ANSWER):
        assert parse(chat(**{"max_tokens": ..., name: number})).vqa_request.fields.max_new_tokens == number
    assert refused(chat(**{"max_tokens": ..., name: LONGEST_ANSWER + 1})) == ("bad_generation", name)


@pytest.mark.parametrize("none", [0, 0.0, -0.0])
def test_a_top_p_of_zero_leaves_the_likeliest_token(none: float) -> None:
    """OpenAI takes it, and harnesses send it with temperature 0 (lmms-eval's pope does)."""
    fields = parse(chat(top_p=none, temperature=1)).vqa_request.fields
    assert (fields.temperature, fields.top_p) == (1, LEAST_TOP_P)
    logits, params = torch.tensor([1.0, 1.001, 0.9]), fields.generation_params()
    assert {Sampler.start(params).draw(logits) for _ in range(50)} == {1}
    open_ended = parse(chat(top_p=1, temperature=1)).vqa_request.fields.generation_params()
    assert {Sampler.start(open_ended).draw(logits) for _ in range(200)} == {0, 1, 2}


@pytest.mark.parametrize("top_p", [False, -1e-9, 1.001, "0", [0]])
def test_other_values_of_top_p_are_refused(top_p: Any) -> None:
    assert refused(chat(top_p=top_p)) == ("bad_generation", "top_p")


@pytest.mark.parametrize(
    ("stop", "read"), [(None, ()), ("a", ("a",)), ([], ()), (["a"] * MAX_STOPS, ("a",) * 4)]
)
def test_stops(stop: Any, read: tuple[str, ...]) -> None:
    assert parse(chat(stop=stop)).stop == read


@pytest.mark.parametrize("stop", ["", [""], ["a"] * 5, [1], 1, {"a": 1}, "a" * 65, "\ud800", True, [["a"]]])
def test_stops_that_are_refused(stop: Any) -> None:
    assert refused(chat(stop=stop)) == ("bad_generation", "stop")


def test_merging_and_depth_are_said_in_objects() -> None:
    merge = {
        "method": "saint",
        "keep_ratio": 0.5,
        "options": {"tau": 0.9},
        "layers": None,
        "prop_attn": False,
    }
    given = {"source": "client", "preset": None, "scale": 5000, "kind": "metric", "invalid": [65535]}
    read = parse(chat(user(image(), depth(), text()), merge=merge, depth=given))
    assert read.vqa_request.depths == (DEPTH,)
    assert read.vqa_request.fields.model_dump(exclude_unset=True) == {
        "question": QUESTION,
        "max_new_tokens": 4,
        "method": "saint",
        "keep_ratio": 0.5,
        "options": {"tau": 0.9},
        "prop_attn": False,
        "depth": "client",
        "depth_scale": 5000,
        "depth_kind": "metric",
        "depth_invalid": [65535],
    }


def test_every_merge_field_can_be_sent() -> None:
    merge = {
        "method": "tosa",
        "keep_ratio": 0.5,
        "r": 2,
        "r_hw": [1, 1],
        "layers": [0],
        "schedule": "decreasing",
        "alpha": [0.5],
        "spatial_kernel": "distance",
        "options": {},
        "prop_attn": True,
        "order": "merge",
    }
    assert set(merge) == set(MERGE_FIELDS) - set(TARGETS)  # which go with method=auto only
    assert {name: getattr(parse(chat(merge=merge)).vqa_request.fields, name) for name in merge} == merge


def test_nobody_elses_hints_are_in_the_way() -> None:
    hints = {
        "user": "robot-7",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "reasoning_effort": "low",
        "tools": [{"type": "function", "function": {"name": "move"}}],
        "parallel_tool_calls": True,
        "ignore_eos": True,
        "min_tokens": 4,
        "something_new": {"deep": [1, 2]},
        "stream_options": {"include_obfuscation": False},
    }
    plain = parse(chat())
    assert parse(chat(**hints)) == plain
    assert parse(chat(**dict.fromkeys(HARMLESS), stop=None, merge=None, depth=None, stream=None)) == plain


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_would_be_silently_wrong_is_refused(name: str) -> None:
    for value in HARMLESS[name]:
        assert parse(chat(**{name: value})) == parse(chat())
    for value in ({"type": "json_schema"}, "required", 2.5, ["text", "audio"], [{}]):
        assert refused(chat(**{name: value})) == ("unsupported_field", name)


def test_fields_of_ours_in_the_wrong_place_are_refused() -> None:
    ours = {"depth", "views", "temperature", "top_p", "seed", "timeout_s", "cache", "stream"}
    for name in VqaFields.model_fields.keys() - ours:
        assert refused(chat(**{name: 1})) == ("unknown_field", name)
    with pytest.raises(ServiceError) as caught:
        parse(chat(keep_ratio=0.5))
    assert "merge" in (caught.value.choices or ()) and "inside merge" in caught.value.message


@pytest.mark.parametrize(("where", "name"), [("merge", "ratio"), ("merge", "depth"), ("depth", "unit")])
def test_unknown_fields_of_our_objects_are_refused(where: str, name: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse(chat(**{where: {name: None}}))
    assert (caught.value.code, caught.value.field) == ("unknown_field", f"{where}.{name}")
    assert set(caught.value.choices or ()) >= ({"keep_ratio"} if where == "merge" else {"preset", "source"})
    assert refused(chat(**{where: {"<b>" * 999: 1}})) == ("unknown_field", where)
    assert refused(chat(**{where: [1]})) == ("bad_request", where)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"merge": {"method": "zip"}}, "unknown_method", "method"),
        ({"merge": {"keep_ratio": 0}}, "keep_ratio_out_of_range", "keep_ratio"),
        ({"merge": {"keep_ratio": "0.5"}}, "keep_ratio_out_of_range", "keep_ratio"),
        ({"merge": {"options": {"a": [1]}}}, "bad_option", "options"),
        ({"depth": {"source": "guess"}}, "bad_depth", "depth"),
        ({"depth": {"source": "client"}}, "depth_count", "depth"),
        ({"max_tokens": 0}, "bad_generation", "max_tokens"),
        ({"max_tokens": 2.5}, "bad_generation", "max_tokens"),
        ({"temperature": 2.1}, "bad_generation", "temperature"),
        ({"temperature": "0"}, "bad_generation", "temperature"),
        ({"seed": -1}, "bad_generation", "seed"),
        ({"timeout_s": 0}, "bad_timeout", "timeout_s"),
        ({"stream": "yes"}, "bad_request", "stream"),
        ({"stream_options": True}, "bad_request", "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "bad_request", "stream_options"),
        ({"model": 7}, "bad_request", "model"),
    ],
)
def test_the_bounds_are_those_of_a_question(changes: dict[str, Any], code: str, field: str) -> None:
    assert refused(chat(**changes)) == (code, field)


def test_depth_stands_behind_its_image() -> None:
    read = parse(chat(user(image(b"1"), depth(b"a"), text()), user(image(b"2"), depth(b"b"))))
    assert (read.vqa_request.images, read.vqa_request.depths) == ((b"1", b"2"), (b"a", b"b"))
    assert read.vqa_request.turns == (Turn("user", (None, QUESTION)), Turn("user", (None,)))
    for parts in ([depth(), image()], [image(), text(), depth()], [image(), depth(), depth()], [depth()]):
        code, field = refused(chat(user(*parts, text())))
        assert code == "depth_count" and str(field).startswith("messages[0].content[")
    assert refused(chat(user(image(), depth(), image(), text()))) == ("depth_count", "messages")
    assert refused(chat(user(image(), image(), depth(), text()))) == ("depth_count", "messages")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "ftp://x/y",
        "//x/y",
        "/etc/passwd",
        "iVBORw0KGgo=",
        "",
        " data:image/png;base64,AA==",
    ],
)
def test_nothing_is_fetched(url: str) -> None:
    for kind in ("image_url", "depth_url"):
        part = {"type": kind, kind: {"url": url}}
        before = [image()] if kind == "depth_url" else []
        at = f"messages[0].content[{len(before)}].{kind}"
        assert refused(chat(user(*before, part, text()))) == ("url_refused", at)


@pytest.mark.parametrize(
    "held",
    [None, 7, [], {}, {"url": 7}, {"url": "data:image/png,abc"}, "data:", "data:;base64", "data:;base64,%%%"],
)
def test_files_that_are_no_files(held: Any) -> None:
    part = {"type": "image_url", "image_url": held}
    assert refused(chat(user(part, text()))) == ("bad_request", "messages[0].content[0].image_url")


@pytest.mark.parametrize("held", ["DATA:image/PNG;charset=x;BASE64,AAE=", "data:;base64,AAE="])
def test_data_uris_of_other_looks(held: str) -> None:
    for part in ({"url": held}, held):
        assert parse(chat(user({"type": "image_url", "image_url": part}, text()))).vqa_request.images == (
            b"\0\1",
        )


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        ({}, "messages"),
        ("hello", "messages"),
        (["hello"], "messages[0].role"),
        ([SYSTEM, {"role": "critic", "content": "x"}], "messages[1].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "function_call": {"name": "a"}}], "messages[0].function_call"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "system", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": {"type": "text"}}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": ["text"]}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
            "messages[0].content[0]",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ([{"role": "system", "content": [image()]}], "messages[0].content[0]"),
        ([{"role": "assistant", "content": [image()]}], "messages[0].content[0]"),
    ],
)
def test_what_is_no_conversation(messages: Any, field: str) -> None:
    assert refused(chat(messages=messages)) == ("bad_turns", field)


def test_an_assistant_may_have_said_nothing() -> None:
    silent = {"role": "assistant", "content": None}
    turns = parse(chat(user(text(), image()), silent, user(text("and now ?")))).vqa_request.turns
    assert turns and turns[1] == Turn("assistant", ("",))


@pytest.mark.parametrize("said", ["It is", "", None, [{"type": "text", "text": "It is"}]])
def test_a_conversation_does_not_end_with_the_assistant(said: Any) -> None:
    """It would be read as a finished turn, and answered by another one."""
    given = chat(user(text(), image()), {"role": "assistant", "content": said})
    assert refused(given) == ("bad_turns", "messages[1].role")
    with pytest.raises(ServiceError) as caught:
        parse(given)
    assert "does not continue an answer" in caught.value.message


def test_images_are_counted_over_all_turns() -> None:
    assert (
        len(parse(chat(user(text(), image()), *[user(image())] * 2)).vqa_request.images)
        == SETTINGS.max_images
    )
    assert refused(chat(user(text(), image()), *[user(image())] * 3)) == ("image_count", "image")
    assert refused(chat(user(text()))) == ("image_count", "image")


def test_a_user_has_to_say_something() -> None:
    for given in ([user(image())], [SYSTEM, user(text("  "), image())]):
        assert refused(chat(*given)) == ("empty_question", "question")


def test_histories_are_long_but_bounded() -> None:
    limit = QUESTIONS_LONG * SETTINGS.max_question_chars
    given = parse(chat(SYSTEM, user(image(), text("x" * (limit - 9))))).vqa_request
    assert len(given.fields.question) == SETTINGS.max_question_chars
    assert sum(len(one) for turn in given.turns or () for one in turn.content if one) == limit
    assert refused(chat(SYSTEM, user(image(), text("x" * (limit - 8))))) == ("prompt_too_long", "messages")


def test_the_model_is_the_one_that_answers() -> None:
    assert parse(chat(model="tiny")).model == "tiny" and parse(chat(model="/models/tiny")).model
    with pytest.raises(ServiceError) as caught:
        parse(chat(model="gpt-4o"))
    assert (caught.value.code, caught.value.choices) == ("model_not_found", ("tiny",))
    assert refused(chat(model="/models")) == refused(chat(model="")) == ("model_not_found", "model")


def test_uri_is_what_clients_write() -> None:
    assert uri(b"\0\1") == "data:image/png;base64,AAE="
