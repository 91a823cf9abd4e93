"""Bounds on a JSON schema, so that compiling it and following it stays cheap whoever wrote it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from vlm.model import VlmError

Schema = Mapping[str, Any]

MAX_SCHEMA_CHARS = 32_768
MAX_SCHEMA_DEPTH = 32
MAX_COUNT = 10_000
"""Of lengths and numbers of items, of all repetitions of a pattern multiplied, and of all divisors."""
MAX_PATTERN_CHARS = 1_000
MAX_NUMBER = 2**53
"""Of minimum and maximum: integers above are not exact in JSON."""
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
REPETITION = re.compile(r"\{(\d*)(?:,(\d*))?\}")


def check_bounds(schema: Schema) -> None:
    """Raise VlmError (invalid_schema) if a schema is too large, or asks for what is too much work."""
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise invalid(f"it may be nested at most {MAX_SCHEMA_DEPTH} deep", MAX_SCHEMA_DEPTH)
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise invalid(f"it may have at most {MAX_SCHEMA_CHARS} characters", MAX_SCHEMA_CHARS)
    divisors: set[int] = set()
    for node in nodes(schema):
        for names, most in ((COUNTS, MAX_COUNT), (NUMBERS, MAX_NUMBER)):
            for name in names:
                if _is_number(node.get(name)) and abs(node[name]) > most:
                    raise invalid(f"{name} may be at most {most}", most)
        for pattern in _patterns(node):
            _check_pattern(pattern)
        if _is_number(node.get("multipleOf")):
            divisors.add(_digits(node["multipleOf"]))
    if math.prod(divisors) > MAX_COUNT:
        raise invalid(f"the digits of multipleOf may be at most {MAX_COUNT}", MAX_COUNT)


def nodes(schema: Any) -> Iterator[Schema]:
    """Yield every object inside a schema, itself first."""
    if isinstance(schema, Mapping):
        yield schema
    for inner in _children(schema):
        yield from nodes(inner)


def invalid(reason: str, limit: float | None = None) -> VlmError:
    """Return the error for a schema that cannot be used."""
    return VlmError("invalid_schema", f"the schema cannot be used: {reason}.", field="schema", limit=limit)


def _depth(schema: Schema) -> int:
    """Return how deep a schema is nested, at most one more than is allowed."""
    level: list[Any] = [schema]
    depth = 0
    while level and depth <= MAX_SCHEMA_DEPTH:
        level, depth = [inner for one in level for inner in _children(one)], depth + 1
    return depth


def _children(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return [one for one in inner if isinstance(one, Mapping | list)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _patterns(node: Schema) -> Iterator[str]:
    if isinstance(node.get("pattern"), str):
        yield node["pattern"]
    if isinstance(node.get("patternProperties"), Mapping):
        yield from node["patternProperties"]


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise invalid(f"a pattern may have at most {MAX_PATTERN_CHARS} characters", MAX_PATTERN_CHARS)
    counts = (count for found in REPETITION.finditer(pattern) for count in found.groups() if count)
    product = 1
    for count in counts:
        product *= int(count[:6]) or 1
        if product > MAX_COUNT:
            raise invalid(f"the repetitions of a pattern may multiply to at most {MAX_COUNT}", MAX_COUNT)


def _digits(number: float) -> int:
    """Return the digits of a number without its point and the zeros at its ends: 12.50 is 125."""
    digits = "".join(map(str, Decimal(str(number)).as_tuple().digits)).strip("0")
    return int(digits or "1")
