"""From the JSON of a response to a dataclass, by the types of its fields."""

from __future__ import annotations

import base64
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read(kind: type[T], value: Any) -> T:
    """Make a dataclass of a JSON object; unknown fields are left out. Raises ValueError."""
    return _object(kind, value)


def _object(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind.__name__} is not an object")
    found: dict[str, Any] = {}
    for name, expected, is_needed in _fields(kind):
        if name == "raw":
            found[name] = value
        elif name in value:
            found[name] = _value(expected, value[name], f"{kind.__name__}.{name}")
        elif is_needed:
            raise ValueError(f"{kind.__name__} lacks {name}")
    return kind(**found)


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (one.name, hints[one.name], one.default is MISSING and one.default_factory is MISSING)
        for one in fields(kind)
    )


def _value(expected: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _first(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        return tuple(_value(inner[0], one, where) for one in value)
    if is_dataclass(expected):
        return _object(expected, value)
    if expected is bytes and isinstance(value, str):
        return base64.b64decode(value)
    if _fits(expected, value):
        return value
    raise ValueError(f"{where} is {value!r}")


def _first(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return the value as the first of these types that takes it."""
    for kind in kinds[:-1]:
        with suppress(ValueError):
            return _value(kind, value, where)
    return _value(kinds[-1], value, where)


def _fits(expected: Any, value: Any) -> bool:
    if get_origin(expected) is not None:  # Mapping[str, ...]
        return isinstance(value, Mapping)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return expected is Any or isinstance(value, expected)
