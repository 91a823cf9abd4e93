"""Raw bodies for every address that takes one, over a real socket: refused in our own words, or answered.

`python -m tests.fuzz.http --bodies 20000`; knows what an answer may look like, and not how it is made.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import http.client
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from service.api.chat.request import HARMLESS
from service.errors.table import CODES
from service.request.schemas import VqaFields
from tests.fuzz.mutate import mutate
from tests.fuzz.sentences import is_ours
from tests.loopback import PATIENCE_S
from tests.service.chats import chat, depth, image, text, user
from tests.service.files import DEPTH, IMAGE

CANARY = "c\u00e4nary<7>"  # never looks like the name of a field, which may be repeated
LEAKS = re.compile(
    rb"Traceback|0x[0-9a-f]{6,}|site-packages|/tmp/|/work/|\.py\b|Error\(|object at|file-of-mine|"
    rb"nary<7>|nary\\u003c7"
)
MOST_BYTES = 4096
PARTS = {"code", "message", "request_id", "field", "choices", "limit"}
CHAT_PARTS = (PARTS - {"field"}) | {"type", "param"}
CLIENTS = 4
FIELDS = {"question": CANARY, "max_new_tokens": 2, "timeout_s": 20}
FILES: dict[str, list[str]] = {
    name: [base64.b64encode(data).decode()] for name, data in (("images", IMAGE), ("depths", DEPTH))
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "side": {"enum": ["left", "red", "many"]},
        "count": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
        "said": {"type": "array", "items": {"$ref": "#/$defs/Word"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["side", "count"],
    "additionalProperties": False,
    "$defs": {"Word": {"type": "string", "minLength": 1, "maxLength": 9}},
}
GOOD: dict[str, dict[str, Any]] = {
    "/vqa": {
        **FIELDS,
        **FILES,
        "method": "tosa",
        "keep_ratio": 0.5,
        "options": {},
        "stream": False,
        "seed": 1,
        "temperature": 0.5,
    },
    "/vqa/compare": {**FIELDS, **FILES, "specs": [{"method": "tome", "r": 1}, {}], "cache": False},
    "/depth/inspect": {"depths": FILES["depths"], "picture": True, "depth_invalid": [1], "depth_scale": 1000},
    "/v1/chat/completions": chat(
        {"role": "system", "content": CANARY},
        user(image(), depth(), text(CANARY)),
        merge={"method": "tosa", "keep_ratio": 0.5, "options": {}},
        depth={"source": "client", "scale": 1000},
        stop=["."],
        stream=True,
        stream_options={"include_usage": True},
    ),
    "/v1/chat/completions?": chat(
        user(image(), text(CANARY)),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "report", "strict": True, "schema": SCHEMA},
        },
        tools=[{"type": "function", "function": {"name": "report", "parameters": SCHEMA}}],
        tool_choice="auto",
        n=2,
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=4,
        max_tokens=512,
    ),
    "/v1/chat/completions??": chat(
        user(image(), text(CANARY)),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": CANARY},
        tools=[{"type": "function", "function": {"name": "report", "parameters": SCHEMA}}],
        tool_choice={"type": "function", "function": {"name": "report"}},
        n=2,
        stream=True,
    ),
}
"""Good bodies by address; question marks tell several of one address apart."""
SCHEMA_WORDS = (
    *(
        "type",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
        "$ref",
        "$defs",
        "pattern",
        "format",
        "items",
    ),
    *("minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "multipleOf", "properties"),
    *("required", "additionalProperties", "patternProperties", "uniqueItems", "tool_choice", "n", "logprobs"),
)
TOKENS = [
    *'{}[],:"\\0-.eE \n\t\x00',
    *("NaN", "-Infinity", "1e999", "1E400000", "9" * 40, "9" * 5000, "-0", "true", "false", "null", '""'),
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', "\ufeff", "\u2028", "\U0001f916", "[" * 3000),
    *('{"a":' * 1500, f'"{CANARY}"', f'"{CANARY}":1,', '{"url":"http://127.0.0.1:1/x"}', '"file:///etc/x"'),
    *(
        f'"{name}":'
        for name in (*VqaFields.model_fields, *HARMLESS, "n", "stop", "messages", "specs", *SCHEMA_WORDS)
    ),
]
FORM_TOKENS = [
    *(b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b"\n", b"\x00", b"\xff\xfe", b'name="', b"; filename=a"),
    *(b"filename*=utf-8''%ff", b"Content-Type: multipart/mixed; boundary=b\r\n", b"[" * 5000, b"1e999"),
    *(b"nan", b"9" * 6000, b"1," * 3000, b'{"a":{}}', b"\xed\xa0\x80", CANARY.encode()),
]
TYPES = [
    *("application/json; charset=utf-99", 'application/json; boundary="x"', "application/json, text/plain"),
    *("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="b'),
    *("multipart/form-data; boundary=\xe9", "text/plain", "application/x-www-form-urlencoded", "", "/"),
    f"x/{'y' * 3000}",
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320, "", "8", CANARY, "tosa"),
    *(CANARY * 300, "\ud800", "data:;base64,AA==", "http://127.0.0.1:1/x", "file:///etc/x", "<image>" * 50),
    *([], {}, [[]], [1, 2, 3], [None], [CANARY], {CANARY: 1}, {"\ud800": 1}, [0] * 600, {"a": {"b": []}}),
]
ENCODINGS = ("gzip", "gzip", "x-gzip", "identity", "br", "gzip, gzip", "\xe9", "")
ORIGINS = ("https://demo.example", "null", "http://127.0.0.1", "http://[", "\xe9", "")
SITES = ("cross-site", "same-site", "same-origin", "none", "\xe9")
FILENAMES = [
    *(b'; filename="/tmp/file-of-mine.png"', b'; filename=""', b"; filename*=UTF-8''file-of-mine%2epng", b""),
    *(
        b'; filename*0="file-of-mine"',
        b'; filename="a\\"',
        b"; filename*=",
        b"\r\nContent-Type: application/json",
    ),
]
QUERIES = ("question=x", "%ff=%00", f"{'a' * 500}=1", "stream=true&stream=true", "=&&=;")


@dataclass(frozen=True)
class Attack:
    """One request."""

    path: str
    kind: str
    body: bytes
    more: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Summary:
    """Count what came back; `failures` are sentences with what caused them."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, Attack]] = field(default_factory=list)
    longest_s: float = 0.0

    def lines(self) -> Iterator[str]:
        """Describe the run for people."""
        yield ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        yield f"longest answer: {self.longest_s:.2f} s; failures: {len(self.failures)}"
        for sentence, attack in self.failures[:10]:
            yield f"  {sentence}: {attack.path} {attack.kind} {attack.body[:200]!r}..."


def attack(rng: Random) -> Attack:
    """Make a request that is right but for a few places."""
    name = rng.choice(list(GOOD))
    path = name.rstrip("?")
    if path != "/v1/chat/completions" and rng.random() < 0.35:
        kind, body = "multipart/form-data; boundary=b", _form(GOOD[name], rng)
    else:
        kind, body = "application/json", _json(GOOD[name], rng)
    if rng.random() < 0.04:
        kind = rng.choice(TYPES)
    if rng.random() < 0.08:
        at = rng.randrange(len(body) + 1)
        noise = rng.randbytes(rng.randrange(1, 40))
        body = rng.choice((body[:at], body[at:], body[:at] + noise + body[at:]))
    more: dict[str, bytes] = {}
    if rng.random() < 0.08:
        body, more["Content-Encoding"] = _packed(body, rng), rng.choice(ENCODINGS).encode("latin-1")
    if rng.random() < 0.03:
        more["Origin"] = rng.choice(ORIGINS).encode("latin-1")
    if rng.random() < 0.02:
        more["Sec-Fetch-Site"] = rng.choice(SITES).encode("latin-1")
    if rng.random() < 0.05:
        path += "/"
    if rng.random() < 0.03:
        path += "?" + rng.choice(QUERIES)
    return Attack(path, kind, body, more)


def run(host: str, port: int, number: int, seed: int) -> Summary:
    """Send `number` attacks from a few clients, each on one connection as long as it lasts."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = pool.map(
            lambda client: _client(host, port, -(-number // CLIENTS), seed + client), range(CLIENTS)
        )
        whole = Summary()
        for part in parts:
            whole.outcomes += part.outcomes
            whole.failures += part.failures
            whole.longest_s = max(whole.longest_s, part.longest_s)
    return whole


def judge(path: str, status: int, request_id: str | None, body: bytes) -> str | None:
    """Say what is wrong with an answer, None if nothing is."""
    if status >= 500 and status not in (503, 504):
        return f"status {status}"
    if status == 200:
        shown = body.replace(json.dumps(CANARY)[1:-1].encode(), b"").replace(CANARY.encode(), b"")
        return "leaks" if path.startswith("/v1/") and LEAKS.search(shown) else None
    if len(body) > MOST_BYTES:
        return f"{len(body)} bytes"
    if found := LEAKS.search(body):
        return f"leaks {found[0]!r}"
    try:
        error = json.loads(body)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        return "not of our shape"
    if set(error) - (CHAT_PARTS if path.startswith("/v1/") else PARTS) or not is_ours(message):
        return "not of our words"
    if CODES[code].status != status or error["request_id"] != request_id:
        return "status or id of another"
    return None


def _client(host: str, port: int, number: int, seed: int) -> Summary:
    rng, summary = Random(seed), Summary()
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    for _ in range(number):
        one = attack(rng)
        headers = {"Content-Type": one.kind.encode("latin-1"), **one.more} if one.kind else one.more
        start = time.monotonic()
        try:
            connection.request("POST", one.path, one.body, headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            summary.failures.append((f"dropped: {type(error).__name__}", one))
            connection.close()
            continue
        summary.longest_s = max(summary.longest_s, time.monotonic() - start)
        summary.outcomes[_code(response.status, body)] += 1
        wrong = judge(one.path, response.status, response.getheader("x-request-id"), body)
        if wrong is not None:
            summary.failures.append((wrong, one))
    connection.close()
    return summary


def _code(status: int, body: bytes) -> str:
    try:
        return "answered" if status == 200 else json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return str(status)


def _packed(body: bytes, rng: Random) -> bytes:
    """Compress a body, whole, cut, damaged, or with far more in it than a body may have."""
    if rng.random() < 0.02:
        body = bytes(8 * 2**20)
    packed = gzip.compress(body)
    if rng.random() < 0.3:
        at = rng.randrange(len(packed))
        packed = rng.choice((packed[:at], packed[:at] + rng.randbytes(3) + packed[at + 3 :], packed + packed))
    return packed


def _json(good: dict[str, Any], rng: Random) -> bytes:
    if rng.random() < 0.3:
        good = _damaged_file(good, rng)
    if rng.random() < 0.2:
        good = _rewritten_file(good, rng)
    is_sound = rng.random() < 0.6
    for _ in range(rng.choice((0, 1, 1, 2)) if is_sound else 0):
        good = _with_value(good, rng)
    whole = json.dumps(good, ensure_ascii=is_sound or rng.random() < 0.5)
    for _ in range(0 if is_sound else rng.choice((1, 1, 2, 4))):
        whole = _spliced(whole, rng)
    return whole.encode("utf-8", "surrogatepass")


def _with_value(good: Any, rng: Random) -> Any:
    """Put another value in place of one, or below a name nobody knows."""
    if not isinstance(good, dict | list) or not good or rng.random() < 0.3:
        return rng.choice(VALUES)
    if isinstance(good, list):
        at = rng.randrange(len(good))
        return [*good[:at], _with_value(good[at], rng), *good[at + 1 :]]
    name = rng.choice([*good, *good, "stream", "max_new_tokens", "layers", "schedule", "stranger", CANARY])
    return {**good, name: _with_value(good.get(name), rng)}


def _spliced(whole: str, rng: Random) -> str:
    """Put a token into a body, in place of some of its characters or of a whole value."""
    start = rng.randrange(len(whole))
    if rng.random() < 0.7:  # at the beginning of a value
        start = whole.find(":", start) + 1
    ends = [at for mark in ",}]" if (at := whole.find(mark, start)) >= 0] or [start]
    end = rng.choice((start, start + rng.randrange(9), min(ends)))
    return whole[:start] + rng.choice(TOKENS) + whole[end:]


def _damaged_file(good: Any, rng: Random) -> Any:
    """Damage files wherever they stand, with sums that come out right."""
    if isinstance(good, dict):
        return {name: _damaged_file(value, rng) for name, value in good.items()}
    if isinstance(good, list):
        return [_damaged_file(value, rng) for value in good]
    if not isinstance(good, str) or len(good) < 100:
        return good
    head, comma, data = good.rpartition(",")
    return head + comma + base64.b64encode(mutate(base64.b64decode(data), "png", rng)).decode()


def _rewritten_file(good: Any, rng: Random) -> Any:
    """Write files as other clients do, in lines, url-safe, unpadded or as data URIs, or as no client does."""
    if isinstance(good, dict):
        return {name: _rewritten_file(value, rng) for name, value in good.items()}
    if isinstance(good, list):
        return [_rewritten_file(value, rng) for value in good]
    if not isinstance(good, str) or len(good) < 100:
        return good
    head, comma, data = good.rpartition(",")
    at = rng.randrange(len(data))
    forms = (
        data.translate(str.maketrans("+/", "-_")),
        data.rstrip("="),
        data[:at] + rng.choice(("\r\n", " ", "\t", "=", "%3D", "\u00e9", "\0")) + data[at:],
        f"data:image/png;base64,{data}",
        f"data:,{data}",
        data + "=" * rng.randrange(4),
    )
    return head + comma + rng.choice(forms)


def _form(good: dict[str, Any], rng: Random) -> bytes:
    parts = []
    for name, value in good.items():
        if name in FILES:
            data = base64.b64decode(value[0])
            data = mutate(data, "png", rng) if rng.random() < 0.3 else data
            parts.append(_part(name[:-1], rng.choice(FILENAMES), data))
        else:
            said = value if isinstance(value, str) else json.dumps(value)
            said = "" if rng.random() < 0.1 else said
            parts.append(_part(name, rng.choice(FILENAMES) if rng.random() < 0.2 else b"", said.encode()))
    whole = b"".join(parts) + b"--b--\r\n"
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        start = rng.randrange(len(whole))
        end = start + rng.choice((0, 0, 1, 8))
        whole = whole[:start] + rng.choice(FORM_TOKENS) + whole[end:]
    return whole


def _part(name: str, more: bytes, data: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (name.encode(), more)
    return head + data + b"\r\n"


def main() -> int:
    """Fuzz a service with a tiny random model; fail if anything went wrong."""
    from tests.service.live import live
    from tests.vlm.conftest import write_checkpoint

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "tiny")
        with live(model, max_queue=16, max_batch=8, max_answer_tokens=8) as served:
            start = time.monotonic()
            summary = run("127.0.0.1", served.port, asked.bodies, asked.seed)
    print(f"{asked.bodies} bodies from seed {asked.seed} in {time.monotonic() - start:.0f} s")
    print("\n".join(summary.lines()))
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
