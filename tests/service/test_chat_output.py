"""What a chat completion may ask of its answers: formats, functions, several answers, probabilities."""

from __future__ import annotations

from typing import Any

import pytest

from service.api.chat.calls import Call, read_call
from service.api.chat.output import MAX_NAME_CHARS, MAX_TOOLS, ToolUse, read_output
from service.errors import ServiceError
from service.request.schemas import Output
from tests.service.chats import body, chat, image, text, user
from tests.service.test_chat_request import SETTINGS, parse_chat
from vlm import MAX_TOP_LOGPROBS, Turn

SCHEMA = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}}
NAMED = {"type": "json_schema", "json_schema": {"name": "side", "schema": SCHEMA, "strict": True}}


def tool(name: str = "report", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **function}}


def chosen(name: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def refused(raw: dict[str, Any]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        read_output(raw)
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"response_format": {"type": "text"}},
        {"tools": [tool()]},
        {"tools": [tool()], "tool_choice": "auto"},
        {"tools": ["junk"], "tool_choice": "none"},
        {"n": 1, "logprobs": False, "top_logprobs": 0},
    ],
)
def test_text_is_the_default(raw: dict[str, Any]) -> None:
    output, tool_use = read_output(raw)
    assert (output.schema, output.choices, output.top_logprobs, tool_use) == (None, 1, None, None)


def test_formats() -> None:
    assert read_output({"response_format": {"type": "json_object"}})[0].schema == {"type": "object"}
    output, tool_use = read_output({"response_format": NAMED, "n": 3, "logprobs": True, "top_logprobs": 5})
    assert output == Output(SCHEMA, "response_format.json_schema.schema", 3, 5) and tool_use is None
    assert read_output({"logprobs": True})[0].top_logprobs == 0


@pytest.mark.parametrize(("choice", "is_named"), [("required", False), (chosen("report"), True)])
def test_one_function(choice: Any, is_named: bool) -> None:
    output, tool_use = read_output({"tools": [tool()], "tool_choice": choice, "response_format": NAMED})
    assert (output.schema, output.schema_field) == (SCHEMA, "tools[0].function.parameters")
    assert tool_use == ToolUse(("report",), is_named)


def test_a_function_without_parameters_takes_none() -> None:
    output, _ = read_output({"tools": [tool(parameters=None)], "tool_choice": "required"})
    assert output.schema == {"type": "object", "properties": {}, "additionalProperties": False}


def test_one_of_several_functions_keeps_the_references_of_each() -> None:
    inner = {"$defs": {"Side": {"enum": ["left"]}}, "properties": {"side": {"$ref": "#/$defs/Side"}}}
    functions = [tool("a"), tool("b", parameters=inner)]
    output, tool_use = read_output({"tools": functions, "tool_choice": "required"})
    assert tool_use == ToolUse(("a", "b"), False) and output.schema is not None
    moved = output.schema["$defs"]["1"]
    assert moved["properties"]["side"] == {"$ref": "#/$defs/1/$defs/Side"}
    assert [call["properties"]["name"] for call in output.schema["anyOf"]] == [{"const": "a"}, {"const": "b"}]
    named, _ = read_output({"tools": functions, "tool_choice": chosen("b")})
    assert named.schema == {"type": "object", **inner}
    assert named.schema_field == "tools[1].function.parameters"


FORMAT = "response_format"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({FORMAT: "json"}, "bad_schema", FORMAT),
    ({FORMAT: {}}, "bad_schema", f"{FORMAT}.type"),
    ({FORMAT: {"type": "grammar"}}, "bad_schema", f"{FORMAT}.type"),
    ({FORMAT: {"type": ["text"]}}, "bad_schema", f"{FORMAT}.type"),
    ({FORMAT: {"type": "json_schema"}}, "bad_schema", f"{FORMAT}.json_schema"),
    ({FORMAT: {"type": "json_schema", "json_schema": []}}, "bad_schema", f"{FORMAT}.json_schema"),
    ({FORMAT: {"type": "json_schema", "json_schema": {}}}, "bad_schema", f"{FORMAT}.json_schema.name"),
    *(
        (
            {FORMAT: {"type": "json_schema", "json_schema": {"name": name}}},
            "bad_schema",
            f"{FORMAT}.json_schema.name",
        )
        for name in ("", "a b", "x" * (MAX_NAME_CHARS + 1), 7, "\u00e9")
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "a"}}},
        "bad_schema",
        f"{FORMAT}.json_schema.schema",
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "a", "schema": True}}},
        "bad_schema",
        f"{FORMAT}.json_schema.schema",
    ),
    (
        {FORMAT: {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": "yes"}}},
        "bad_request",
        f"{FORMAT}.json_schema.strict",
    ),
    ({"tool_choice": "required"}, "bad_schema", "tools"),
    ({"tool_choice": "required", "tools": []}, "bad_schema", "tools"),
    ({"tool_choice": "required", "tools": {}}, "bad_schema", "tools"),
    (
        {"tool_choice": "required", "tools": [tool(f"f{at}") for at in range(MAX_TOOLS + 1)]},
        "bad_schema",
        "tools",
    ),
    ({"tool_choice": "required", "tools": [tool(), tool()]}, "bad_schema", "tools"),
    ({"tool_choice": "required", "tools": [tool(), 7]}, "bad_schema", "tools[1].function"),
    ({"tool_choice": "required", "tools": [{"type": "function"}]}, "bad_schema", "tools[0].function"),
    ({"tool_choice": "required", "tools": [tool("")]}, "bad_schema", "tools[0].function.name"),
    (
        {"tool_choice": "required", "tools": [tool(parameters=[])]},
        "bad_schema",
        "tools[0].function.parameters",
    ),
    *(
        ({"tool_choice": choice, "tools": [tool()]}, "bad_schema", "tool_choice")
        for choice in (
            "any",
            chosen("other"),
            chosen(None),
            {"type": "function"},
            {"type": "allowed_tools"},
            7,
            [],
        )
    ),
    *(({"n": number}, "bad_generation", "n") for number in (0, 9, 1.0, True, "1", [1])),
    *(({"logprobs": value}, "bad_generation", "logprobs") for value in (1, "true", [])),
    *(
        ({"logprobs": True, "top_logprobs": number}, "bad_generation", "top_logprobs")
        for number in (-1, MAX_TOP_LOGPROBS + 1, 2.5, True, "3")
    ),
    ({"top_logprobs": 2}, "bad_generation", "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 2}, "bad_generation", "top_logprobs"),
]


@pytest.mark.parametrize(("raw", "code", "field"), WRONG, ids=str)
def test_what_cannot_be_done_is_refused_with_its_field(raw: dict[str, Any], code: str, field: str) -> None:
    error = refused(raw)
    assert (error.code, error.field) == (code, field)
    assert field in error.message


def test_a_chat_holds_all_of_it() -> None:
    read = parse_chat(body(chat(n=2, tools=[tool()], tool_choice="required", logprobs=True)), SETTINGS)
    assert read.vqa_request.output == Output(SCHEMA, "tools[0].function.parameters", 2, 0)
    assert read.tool_use == ToolUse(("report",), False)


def test_calls_and_their_results_are_read_as_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "report", "arguments": '{"side": "left"}'}}
    history = [
        user(text(), image()),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "no such side"},
    ]
    assert parse_chat(body(chat(*history)), SETTINGS).vqa_request.turns == (
        Turn("user", ("how many cubes ?", None)),
        Turn("assistant", ('report({"side": "left"})',)),
        Turn("user", ("no such side",)),
    )


@pytest.mark.parametrize(
    "call",
    [None, {}, {"function": []}, {"function": {"name": "a"}}, {"function": {"name": 1, "arguments": ""}}],
)
def test_calls_that_are_none(call: Any) -> None:
    history = [user(text(), image()), {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(ServiceError) as caught:
        parse_chat(body(chat(*history)), SETTINGS)
    assert caught.value.field == "messages[1].tool_calls[0]"


TWO = ToolUse(("a", "b"), False)
CALL = '{"name": "b", "arguments": {"side": "left"}}'


@pytest.mark.parametrize("cut", range(len(CALL) + 1))
def test_a_call_in_two_pieces_is_the_whole_call(cut: int) -> None:
    call = Call(TWO)
    arguments = call.push(CALL[:cut]) + call.push(CALL[cut:]) + call.flush(is_whole=True)
    assert (call.name, arguments) == ("b", '{"side": "left"}')
    assert read_call(TWO, CALL, is_whole=True) == ("b", '{"side": "left"}')


def test_calls_that_were_cut_off() -> None:
    assert read_call(TWO, CALL[:20], is_whole=False) is None
    assert read_call(TWO, CALL[:36], is_whole=False) == ("b", '{"side": ')
    assert read_call(ToolUse(("a",), True), '{"side": "le', is_whole=False) == ("a", '{"side": "le')
