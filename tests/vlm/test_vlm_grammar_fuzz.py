"""Schemas of all kinds, right and wrong: refused in our words or followed, and never slow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.http import SCHEMA, SCHEMA_WORDS
from tests.fuzz.sentences import is_ours
from vlm import Vlm, VlmError
from vlm.grammar import compile_schema
from vlm.schema_bounds import MAX_COUNT, MAX_NUMBER

QUICK_S = 2.0  # CPU seconds for the worst schema and its first tokens; the usual one takes milliseconds
LEAVES = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 7, 10**4, 2**53, 2**64, 1e308, 1e-9, 0.01, "", "string", "integer"),
        *("object", "array", "left", "red", "#", "#/$defs/Word", "http://x/y", "date", "uuid", "^a+$"),
        *("(a{9}){9}", "([", "\ud800"),
    ]
)
NODES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(SCHEMA_WORDS), inner, max_size=4)
    ),
    max_leaves=16,
)
SLOW: dict[str, dict[str, Any]] = {
    "repeated repetitions": {"type": "string", "pattern": "^(a{1000}){1000}$"},
    "a large divisor": {"type": "integer", "multipleOf": 999_983},
    "large divisors": {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (97, 89, 83)]},
    "a large range": {"type": "integer", "minimum": 1, "maximum": 10**18},
    "a long text": {"type": "string", "maxLength": 10**9},
    "many items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**6},
    "many fields": {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(900)}},
    "itself": {"$ref": "#"},
}


def first(mask: torch.Tensor) -> int:
    return int(mask.nonzero()[0])


def last(mask: torch.Tensor) -> int:
    return int(mask.nonzero()[-1])


@pytest.fixture(scope="module", params=["words", "bytes"])
def model(request: pytest.FixtureRequest, load: Callable[..., Vlm]) -> Vlm:
    return load(byte_level=request.param == "bytes")


def judge(model: Vlm, schema: dict[str, Any]) -> VlmError | None:
    """Compile a schema and follow it for a while; return why it is refused."""
    start, refusal = time.process_time(), None
    try:
        guide = compile_schema(model, schema).start()
        for at in range(12):
            if isinstance(guide.next_token(first if at % 2 else last), str):
                break
        if guide.is_complete:
            json.loads(guide.text)
    except VlmError as error:
        refusal = error
        assert error.code == "invalid_schema" and is_ours(str(error)), str(error)
    took = time.process_time() - start
    assert took < QUICK_S, f"{took:.2f} s"
    return refusal


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=st.dictionaries(st.sampled_from(SCHEMA_WORDS), NODES, max_size=5))
def test_schemas_of_all_kinds(model: Vlm, schema: dict[str, Any]) -> None:
    judge(model, schema)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_good_schema_with_wrong_parts(model: Vlm, data: st.DataObject) -> None:
    schema = json.loads(json.dumps(SCHEMA))
    places = [schema, *schema["properties"].values(), schema["$defs"]["Word"]]
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(places))
        node[data.draw(st.sampled_from(SCHEMA_WORDS))] = data.draw(NODES)
    judge(model, schema)


@pytest.mark.parametrize("name", SLOW)
def test_what_would_be_slow_is_refused(model: Vlm, name: str) -> None:
    assert judge(model, SLOW[name]) is not None or name == "many fields"


def test_at_the_bounds_nothing_is_slow(model: Vlm) -> None:
    for schema in (
        {"type": "integer", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
        {"type": "string", "maxLength": MAX_COUNT},
        {"type": "array", "items": {"type": "integer"}, "minItems": MAX_COUNT, "maxItems": MAX_COUNT},
        {"type": "integer", "multipleOf": MAX_COUNT - 27},
        {"type": "number", "multipleOf": 0.01},
        SCHEMA,
    ):
        assert judge(model, schema) is None
