"""How the text of a form becomes numbers, lists and objects. JSON brings its own types and is left alone."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeGuard

from pydantic import ValidationInfo


class RepeatedKey(ValueError):
    """A name stands twice in one object, so that readers may differ about what it holds."""


def read_json(text: str) -> Any:
    """Read JSON strictly: no NaN, no Infinity, no name twice. Raises ValueError, RepeatedKey."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise RepeatedKey("a name stands twice")
    return read


def _refuse(constant: str) -> NoReturn:
    """Refuse constants that Python accepts and JSON does not have."""
    raise ValueError(f"{constant} is not JSON")


TEXT = {"is_text": True}
"""Validation context of values that may be text standing for something else."""
MAX_OBJECT_CHARS = 4096
MAX_ENTRIES = 32


def numbers(value: object, info: ValidationInfo) -> object:
    """Read "8", "0.5", "8,8,4" and "[8, 8, 4]" as numbers; keep words."""
    if not _is_text(value, info):
        return value
    try:
        parts = [_number(part) for part in value.strip().strip("[]").split(",")]
    except ValueError:
        return value
    return parts if len(parts) > 1 or value.strip().startswith("[") else parts[0]


def number_list(value: object, info: ValidationInfo) -> object:
    """Read as `numbers` does, but one number is a list of one."""
    read = numbers(value, info)
    return [read] if _is_text(value, info) and isinstance(read, int | float) else read


def json_object(value: object, info: ValidationInfo) -> object:
    """Read '{"margin": 0.75}' as an object; keep anything else, which is then refused as text."""
    if not _is_text(value, info) or len(value) > MAX_OBJECT_CHARS:
        return value
    try:
        read = read_json(value)
    except ValueError:
        return value
    return read if isinstance(read, dict) else value


def few(value: object) -> object:
    """Refuse an object with too many entries before each of them is looked at. Raises ValueError."""
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} entries")
    return value


def option(text: str) -> tuple[str, int | float | str | None]:
    """Read name=value of the command line: a number where it looks like one, null, else text.

    Raises ValueError without a name or an equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text} is not name=value")
    if value == "null":
        return name, None
    try:
        return name, _number(value)
    except ValueError:
        return name, value


def _is_text(value: object, info: ValidationInfo) -> TypeGuard[str]:
    return isinstance(value, str) and info.context == TEXT


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8; JSON may escape half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
