"""Bodies of all kinds for every parser: refused with a sentence of ours or read, never slow, nothing else."""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.body import parse_inspection, parse_question
from service.api.chat.request import HARMLESS, parse_chat
from service.api.compare import comparison, parse_comparison
from service.api.errors import error_body
from service.errors import ServiceError
from service.errors.table import CODES
from service.errors.translation import LIBRARY_ERRORS, to_service_error
from service.request.schemas import VqaFields
from service.settings import Settings
from tests.fuzz.http import SCHEMA
from tests.service.answers import ANSWER, sent
from tests.service.chats import body, chat, depth, image, text, user

SETTINGS = Settings()
QUICK_S = 0.5  # CPU seconds for the worst body; the usual one takes under a millisecond
JSON, MULTIPART = b"application/json", b"multipart/form-data"
FILES = {"images": ["AAE="], "depths": ["AAE="]}
CHAT = chat(
    {"role": "system", "content": "Be brief."},
    user(image(b"1"), depth(b"2"), text()),
    {"role": "assistant", "content": "two"},
    user(text("and now ?")),
    model="room-tiny",
    merge={"method": "tosa", "keep_ratio": 0.5, "r": [1], "r_hw": [1, 1], "alpha": 0.5, "options": {"a": 1}},
    depth={"source": "client", "scale": 1000, "kind": "metric", "invalid": [0]},
    stop=["."],
    seed=1,
    temperature=0.5,
    stream=True,
    stream_options={"include_usage": True},
    timeout_s=3,
    cache=False,
    n=2,
    logprobs=True,
    top_logprobs=2,
    tools=[{"type": "function", "function": {"name": "report", "parameters": SCHEMA}}],
    tool_choice={"type": "function", "function": {"name": "report"}},
    response_format={"type": "json_schema", "json_schema": {"name": "report", "schema": SCHEMA}},
    max_completion_tokens=7,
)
COMPARE = {"question": "how many ?", **FILES, "depth_scale": 1000, "specs": [{"method": "tome", "r": 1}, {}]}
QUESTION = {"question": "how many ?", **FILES, "method": "tosa", "keep_ratio": 0.5, "options": {"a": 1}}
INSPECT = {"depths": ["AAE="], "picture": True, "depth_invalid": [1]}


def _compare(data: bytes) -> Any:
    compared = parse_comparison(JSON, b"", data, SETTINGS)
    answer = comparison("abc", ANSWER.model, compared, [ANSWER] * len(compared.requests))
    sent(answer)
    return compared


PARSERS: dict[str, tuple[Any, Callable[[bytes], Any]]] = {
    "chat": (CHAT, lambda data: parse_chat(data, SETTINGS)),
    "compare": (COMPARE, _compare),
    "question": (QUESTION, lambda data: parse_question(JSON, b"", data, SETTINGS)),
    "inspect": (INSPECT, lambda data: parse_inspection(JSON, b"", data)),
}
FORMS: dict[str, Callable[[bytes], Any]] = {
    "compare": lambda data: parse_comparison(MULTIPART, b"b", data, SETTINGS),
    "question": lambda data: parse_question(MULTIPART, b"b", data, SETTINGS),
    "inspect": lambda data: parse_inspection(MULTIPART, b"b", data),
}
SCALAR_TOKENS = [
    "1e999",
    "-1e999",
    "1e-999",
    "-1",
    "0",
    "-0",
    "0.5",
    "2",
    "300",
    "9" * 40,
    "9" * 4000,
    "true",
    "false",
    "null",
    '""',
    '" "',
    '"\\ud800"',
    '"\\u0000"',
    '"8"',
    '"tosa"',
    '"estimate"',
    '"metric"',
    '"required"',
    '"user"',
    '"assistant"',
    '"tool"',
    '"image_url"',
    '"depth_url"',
    '"http://127.0.0.1/a"',
    '"file:///etc/passwd"',
    '"data:;base64,AA=="',
    '"data:;base64,A"',
    f'"{"x" * 5000}"',
    "[" + "1, " * 600 + "1]",
]
TOKENS = [
    *'{}[],:"\\0-.eE \n\t\x00',
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e-999",
    "9" * 40,
    "9" * 5000,
    "-0",
    "0.0",
    "1E400000",
    "true",
    "false",
    "null",
    '""',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"a":',
    '"merge":{',
    '"depth":{',
    '"messages":[',
    '"content":[{',
    '"type":"image_url",',
    '"image_url":{"url":"data:;base64,AA=="}',
    '"url":"http://127.0.0.1"',
    '"specs":[{}],',
    '"r":' + "[" * 300,
    "[" * 3000,
    '{"a":' * 1500,
    '{"stop":["' + "x" * 99 + '"]}',
    "\ufeff",
    "\u2028",
    "\U0001f916",
    *(f'"{name}":' for name in (*VqaFields.model_fields, *HARMLESS, "n", "stop", "max_tokens", "role")),
]


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_not_counted() -> Iterator[None]:
    """Leave what is here already out of garbage collections, which would be counted as time of a parser."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def judge(parse: Callable[[bytes], Any], data: bytes) -> ServiceError | None:
    """Parse a body; whatever refuses it must be ours, short, writable and quick."""
    start, refusal = time.process_time(), None
    try:
        parse(data)
    except ServiceError as error:
        refusal = error
    except LIBRARY_ERRORS as error:
        refusal = to_service_error(error)
    took = time.process_time() - start
    assert took < QUICK_S, f"{took:.2f} s for {len(data)} bytes starting {data[:60]!r}"
    if refusal is not None:
        for path in ("/vqa", "/v1/chat/completions"):
            reply = json.dumps(error_body(refusal, "abc", path), ensure_ascii=False, allow_nan=False).encode()
            assert len(reply) < 4096 and CODES[refusal.code].status in range(400, 500)
    return refusal


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**400), 2**63, -1, 0, 1e308, -0.0, 1e-320])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters(exclude_categories=()), max_size=40)
    | st.sampled_from(
        ["tosa", "estimate", "data:;base64,AA==", "http://x", "user", "text", "image_url", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["type", "text", "url", "role", "content", "r", "\ud800", ""]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where a value of a request stands, each as keys from the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", PARSERS)
def test_good_bodies_are_read(name: str) -> None:
    good, parse = PARSERS[name]
    assert judge(parse, body(good)) is None


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_wrong_values_everywhere(name: str, data: st.DataObject) -> None:
    good, parse = PARSERS[name]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(good)))
        good = _with(good, place, data.draw(VALUES))
    judge(parse, body(good))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | VALUES.map(body))
def test_anything_at_all(name: str, data: bytes) -> None:
    judge(PARSERS[name][1], data)


@pytest.mark.parametrize("name", PARSERS)
def test_tokens_where_they_do_not_belong(name: str) -> None:
    good, parse = PARSERS[name]
    rng, whole = Random(5), body(good).decode()
    outcomes = {judge(parse, _spliced(whole, rng)) is None for _ in range(600)}
    assert outcomes == {True, False}  # some damage is harmless, or the mutator only breaks the syntax


def _spliced(whole: str, rng: Random) -> bytes:
    """Put a token into a body, mostly in place of a whole value, which leaves the body JSON."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.8:
            start, end = rng.choice([found.span() for found in SCALARS.finditer(whole)] or [(0, 0)])
            token = rng.choice(WRAPPED).replace("*", rng.choice([*SCALAR_TOKENS, whole[start:end]]))
        else:
            start, token = rng.randrange(len(whole)), rng.choice(TOKENS)
            end = start + rng.choice((0, 0, 1, 8))
        whole = whole[:start] + token + whole[end:]
    return whole.encode()


SCALARS = re.compile(r'(?<=: )("(?:[^"\\]|\\.)*"|-?\d[\d.eE+]*|true|false|null)')
WRAPPED = [
    "*",
    "*",
    "*",
    "[*]",
    "[]",
    "{}",
    '{"url": *}',
    '{"type": *}',
    "[*, *]",
    '{"a": *}',
    "[[*]]",
    "[{}]",
]


PART = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
FORM_TOKENS = [
    b"--b",
    b"--b--",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\x00",
    b"\xff\xfe",
    b'name="',
    b"; filename=a",
    b"filename*=utf-8''%ff",
    b"Content-Disposition: form-data; ",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"[" * 5000,
    b"1e999",
    b"nan",
    b"9" * 6000,
    b"1," * 3000,
    b'{"a":{}}',
    b"\xed\xa0\x80",
]


@pytest.mark.parametrize("name", FORMS)
def test_forms_with_tokens_where_they_do_not_belong(name: str) -> None:
    rng, fields = Random(5), PARSERS[name][0]
    parts = [PART % (b"image", b"; filename=a", b"\x00\x01"), PART % (b"depth", b"; filename=a", b"\x00\x01")]
    texts = {key: value for key, value in fields.items() if key not in FILES}
    parts += [PART % (key.encode(), b"", body(value)) for key, value in texts.items()]
    for number in range(1500):
        whole = b"".join(parts) + b"--b--\r\n"
        for _ in range(number % 4):
            start = rng.randrange(len(whole))
            end = start + rng.choice((0, 0, 1, 8))
            whole = whole[:start] + rng.choice(FORM_TOKENS) + whole[end:]
        judge(FORMS[name], whole)


MANY = 1_000_000
FLOODS: dict[str, bytes] = {
    "a million keys": b"{" + b",".join(b'"%d":0' % i for i in range(MANY)) + b"}",
    "a million values": b'{"messages":[' + b",".join([b"0"] * MANY) + b"]}",
    "a million openings": b"[" * MANY,
    "a million objects": b'{"a":' * MANY,
    "a million digits": b'{"seed":' + b"9" * MANY + b"}",
    "a million digits behind the point": b'{"temperature":0.' + b"9" * MANY + b"}",
    "a million escapes": b'{"question":"' + b"\\u0041" * MANY + b'"}',
    "a million letters": b'{"messages":[{"role":"user","content":"' + b"x" * MANY + b'"}]}',
    "a million letters of a name": b'{"merge":{"' + b"x" * MANY + b'":1}}',
    "a million letters of a model": b'{"model":"' + b"x" * MANY + b'"}',
    "a long address": b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"'
    + b"data:" * MANY
    + b'"}}]}]}',
    "many wrong parts": b'{"messages":[{"role":"user","content":[' + b",".join([b"[]"] * 19_000) + b"]}]}",
    "many messages": b'{"messages":[' + b",".join([b'{"role":"user","content":"x"}'] * 19_000) + b"]}",
    "many layers": b'{"question":"x","merge":{"layers":[' + b",".join([b"true"] * 19_000) + b"]},"
    b'"layers":[' + b",".join([b"true"] * 900) + b"]}",
    "many options": b'{"question":"x","options":{' + b",".join(b'"%d":[]' % i for i in range(9_000)) + b"}}",
    "many specs": b'{"question":"x","images":[],"specs":[' + b",".join([b"{}"] * 9_000) + b"]}",
    "many files": b'{"question":"x","images":[' + b",".join([b'"AA=="'] * 19_000) + b"]}",
    "blank": b" " * MANY,
    "utf-16": json.dumps(CHAT).encode("utf-16"),
    "twice": b'{"question":"x","question":"y"}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("flood", FLOODS)
def test_floods_are_refused_quickly(name: str, flood: str) -> None:
    assert judge(PARSERS[name][1], FLOODS[flood]) is not None


def test_the_judge_sees_what_is_not_ours() -> None:
    def slow(_: bytes) -> None:
        end = time.process_time() + QUICK_S
        while time.process_time() <= end:
            pass

    def long(_: bytes) -> None:
        raise ServiceError("bad_request", field="x" * 5000)

    for bad in (slow, long):
        with pytest.raises(AssertionError):
            judge(bad, b"")
    with pytest.raises(ZeroDivisionError):
        judge(lambda _: 1 // 0, b"")
