"""An event as one line: nothing in it can start a second one, and no line is longer than 2 KiB.

Every log line passes through here, ours and those of libraries.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_BYTES = 2048  # with the line end
_PLAIN = re.compile(r"[\w.:/+-]+")
_UNUSUAL = re.compile(r"[^ -~]+")
_CUT = "..."
_FRAMES, _CAUSES, _MESSAGE_CHARS = 12, 3, 200


def json_line(event: Mapping[str, Any]) -> str:
    """Write an event as one JSON object."""
    return _fitted(event, lambda fields: _printable(_json(fields)))


def text_line(event: Mapping[str, Any]) -> str:
    """Write an event for people: time, level, logger, what happened, name=value; without what is null."""
    return _fitted(event, lambda fields: _printable(_text(fields)))


def truncate(text: str, most: int) -> str:
    """Keep the beginning of a text, of `most` characters at most, and show that it was cut."""
    return text if len(text) <= most else text[: max(most - len(_CUT), 0)] + _CUT


def stack_line(error: BaseException) -> str:
    """Describe an exception in one line: the error, its frames with the innermost first, and its causes."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _CAUSES:
        frames = [_place(frame.f_code, line) for frame, line in traceback.walk_tb(cause.__traceback__)]
        where = " < ".join(reversed(frames[-_FRAMES:]))
        parts.append(f"{type(cause).__name__}: {truncate(_said(cause), _MESSAGE_CHARS)} @ {where}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return " | after ".join(parts)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "?"


def _place(code: Any, line: int) -> str:
    return f"{'/'.join(code.co_filename.split('/')[-2:])}:{line} {code.co_name}"


def _fitted(event: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str]) -> str:
    """Cut what is longest, texts before lists, until the line fits."""
    for most in (2048, 512, 256, 128, 64, 32, 16):
        line = render({name: _shortened(value, most) for name, value in event.items()})
        if len(line.encode()) < LONGEST_BYTES:
            return line
    return render({"level": event.get("level"), "event": "a line of too many fields was left out"})


def _shortened(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return truncate(value, most)
    text = str(value)
    return value if len(text) <= 4 * most else truncate(text, most)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr, separators=(",", ":"))


def _text(fields: Mapping[str, Any]) -> str:
    head = ("time", "level", "logger", "event")
    parts = [str(fields[name]) for name in head if name in fields]
    rest = {name: value for name, value in fields.items() if name not in head and value is not None}
    return " ".join([*parts, *(f"{name}={_value(value)}" for name, value in rest.items())])


def _value(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return _json(value)


def _printable(line: str) -> str:
    """Escape line ends, terminal codes, lone surrogates and invisible marks, as JSON would."""
    return line if line.isprintable() else _UNUSUAL.sub(_escaped, line)


def _escaped(found: re.Match[str]) -> str:
    run = found[0]
    return run if run.isprintable() else json.dumps(run)[1:-1]
