"""Whatever clients write, neither metrics nor log grow by it, and no line of the log is made by them."""

from __future__ import annotations

import http.client
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from service.settings import Settings
from service.telemetry import configure_logging
from tests.loopback import PATIENCE_S
from tests.service.conftest import Question
from tests.service.files import IMAGE
from tests.service.live import Live, live

REQUESTS = 4000
"""A few seconds; 50,000 were tried at length."""
FORGED = '"}\r\n{"level":"CRITICAL","event":"forged"} \x1b[31m\u2028\u202e'
ALPHABET = "abcXYZ019/%.?&=;:+-_~!$'()*,@"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    undo = configure_logging(Settings(log_format="json", log_questions=True), stream)
    yield stream
    undo()


@pytest.fixture
def served(checkpoint: Path, lines: io.StringIO) -> Iterator[Live]:
    with live(checkpoint, log_format="json", log_questions=True) as served:
        logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
        yield served


def series(served: Live) -> int:
    return sum(line[0] != "#" for line in served.client.get("/metrics").text.splitlines())


def request(rng: Random) -> tuple[str, str, dict[str, str]]:
    path = "".join(rng.choices(ALPHABET, k=rng.randrange(1, 60)))
    method = rng.choice(("GET", "POST", "PUT", "X" * rng.randrange(1, 20), "HEAD"))
    names = ("X-Request-ID", "traceparent", "User-Agent", "X-API-Key", "Content-Type")
    values = ("".join(chr(rng.randrange(0x21, 0x7F)) for _ in range(rng.randrange(60))) for _ in names)
    path = rng.choice(("/vqa", f"/vqa/{path}", f"/{path}", f"/v1/models/{path}"))
    return method, path, dict(zip(names, values, strict=True))


def test_random_addresses_and_headers(served: Live, lines: io.StringIO) -> None:
    rng = Random(7)
    served.client.get("/livez")
    before = series(served)
    start = lines.tell()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    for _ in range(REQUESTS):
        method, path, headers = request(rng)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 400, 404, 405, 415, 422), (method, path, response.status)
    connection.close()
    # A refusal of a kind not seen before begins its series, of which there is a closed set.
    assert series(served) - before < 60
    written = lines.getvalue()[start:]
    assert len(written.splitlines()) <= 2 * REQUESTS
    assert max(map(len, written.splitlines()), default=0) <= 2048


def test_no_text_of_a_client_makes_a_line(served: Live, lines: io.StringIO, question: Question) -> None:
    start = lines.tell()
    parts = [("question", (None, FORGED)), ("image", (FORGED, IMAGE)), ("max_new_tokens", (None, "1"))]
    sent = 0
    for files in (parts, [*parts, (FORGED, (None, FORGED))], [("method", (None, FORGED)), *parts]):
        served.client.post("/vqa", files=files)
        sent += 1
    for body in ({"question": FORGED, "images": [FORGED]}, {FORGED: FORGED}, {"model": FORGED}):
        for path in ("/vqa", "/vqa/compare", "/v1/chat/completions", "/depth/inspect"):
            served.client.post(path, json=body)
            sent += 1
    question.but(question=FORGED, max_new_tokens=1).post(served.client, "json")
    written = lines.getvalue()[start:].splitlines()
    assert sent + 1 <= len(written) <= 2 * (sent + 1)
    for line in written:
        event = json.loads(line)
        assert event["level"] != "CRITICAL" and event["event"] != "forged"
        assert line.isprintable() and len(line) <= 2048
    assert any("forged" in line for line in written), "questions are logged here, and were"
