"""How a chat completion wants its answers: as JSON, as a call of a function, several, with probabilities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import ServiceError
from service.request.schemas import Output
from vlm import MAX_TOP_LOGPROBS

Schema = Mapping[str, Any]

MAX_CHOICES = 8
MAX_TOOLS = 32
MAX_NAME_CHARS = 64
ANY_OBJECT: Schema = {"type": "object"}
NO_PARAMETERS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_CHARS}}}", re.ASCII)


@dataclass(frozen=True)
class ToolUse:
    """Which functions an answer has to call: one of `names`. is_named: the request chose it."""

    names: tuple[str, ...]
    is_named: bool


def read_output(raw: Mapping[str, Any]) -> tuple[Output, ToolUse | None]:
    """Read response_format, tools, tool_choice, n, logprobs and top_logprobs. Raises ServiceError.

    Functions that need not be called are not: this model answers with text.
    """
    tool_use, schema, field = _tools(raw)
    if tool_use is None:
        schema, field = _response_format(raw.get("response_format"))
    return Output(schema, field, _choices(raw.get("n", 1)), _top_logprobs(raw)), tool_use


def _response_format(raw: object) -> tuple[Schema | None, str]:
    field = "response_format"
    if raw is None:
        return None, field
    if not isinstance(raw, dict):
        raise ServiceError("bad_schema", reason="object", field=field)
    match raw.get("type"):
        case "text":
            return None, field
        case "json_object":
            return ANY_OBJECT, field
        case "json_schema":
            return _named_schema(raw.get("json_schema"), f"{field}.json_schema")
        case _:
            choices = ("text", "json_object", "json_schema")
            raise ServiceError("bad_schema", reason="format_type", field=f"{field}.type", choices=choices)


def _named_schema(raw: object, where: str) -> tuple[Schema, str]:
    held = _object(raw, where)
    _name(held.get("name"), f"{where}.name")
    if not isinstance(held.get("strict"), bool | None):
        raise ServiceError("bad_request", reason="value", field=f"{where}.strict")
    field = f"{where}.schema"
    return _object(held.get("schema"), field), field


def _tools(raw: Mapping[str, Any]) -> tuple[ToolUse | None, Schema | None, str]:
    """Return the functions of which one has to be called, and the schema of the call with its field."""
    choice = raw.get("tool_choice", "auto")
    if choice in ("none", "auto"):
        return None, None, ""
    functions = _functions(raw.get("tools"))
    named = _named(choice, functions)
    if named is not None or len(functions) == 1:
        name = named or next(iter(functions))
        at, parameters = functions[name]
        return ToolUse((name,), named is not None), parameters, f"tools[{at}].function.parameters"
    return ToolUse(tuple(functions), False), _any_call(functions), "tools"


def _named(choice: object, functions: Mapping[str, Any]) -> str | None:
    """Return the name of the function that tool_choice names, None for required."""
    if choice == "required":
        return None
    held = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = held.get("name") if isinstance(held, dict) else None
    if not isinstance(name, str) or name not in functions:
        raise ServiceError("bad_schema", reason="tool_choice", field="tool_choice", choices=tuple(functions))
    return name


def _functions(raw: object) -> dict[str, tuple[int, Schema]]:
    """Return the place and the parameters of every function, by name."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_TOOLS:
        raise ServiceError("bad_schema", reason="tools", field="tools", limit=MAX_TOOLS)
    functions: dict[str, tuple[int, Schema]] = {}
    for at, one in enumerate(raw):
        where = f"tools[{at}].function"
        held = _object(one.get("function") if isinstance(one, dict) else None, where)
        name, parameters = _name(held.get("name"), f"{where}.name"), held.get("parameters")
        if name in functions:
            raise ServiceError("bad_schema", reason="tools", field="tools", limit=MAX_TOOLS)
        sent = NO_PARAMETERS if parameters is None else _object(parameters, f"{where}.parameters")
        functions[name] = at, {"type": "object", **sent}
    return functions


def _any_call(functions: Mapping[str, tuple[int, Schema]]) -> Schema:
    """Return a schema for a call of any of these functions: its name, then its arguments."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{at}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, (at, _) in functions.items()
    ]
    inner = {str(at): _moved(parameters, f"#/$defs/{at}") for at, parameters in functions.values()}
    return {"anyOf": calls, "$defs": inner}


def _moved(schema: Any, base: str) -> Any:
    """Return a schema whose references to itself still lead there once it stands at `base`."""
    if isinstance(schema, list):
        return [_moved(one, base) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: base + value[1:]
        if name == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, base)
        for name, value in schema.items()
    }


def _object(raw: object, field: str) -> dict[str, Any]:
    if raw is None:
        raise ServiceError("bad_schema", reason="missing", field=field)
    if not isinstance(raw, dict):
        raise ServiceError("bad_schema", reason="object", field=field)
    return raw


def _name(raw: object, field: str) -> str:
    if not isinstance(raw, str) or not NAME.fullmatch(raw):
        raise ServiceError("bad_schema", reason="name", field=field, limit=MAX_NAME_CHARS)
    return raw


def _choices(raw: object) -> int:
    return _count(raw, "n", 1, MAX_CHOICES)


def _top_logprobs(raw: Mapping[str, Any]) -> int | None:
    wanted, top = raw.get("logprobs", False), raw.get("top_logprobs")
    if not isinstance(wanted, bool):
        raise ServiceError("bad_generation", sentence="logprobs must be true or false.", field="logprobs")
    number = 0 if top is None else _count(top, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    if number and not wanted:
        raise ServiceError("bad_generation", reason="needs_logprobs", field="top_logprobs")
    return number if wanted else None


def _count(raw: object, field: str, least: int, most: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
        is_below = isinstance(raw, int) and raw < least
        sentence = f"{field} must be an integer at least {least} and at most {most}."
        limit = least if is_below else most
        raise ServiceError("bad_generation", sentence=sentence, field=field, limit=limit)
    return raw
