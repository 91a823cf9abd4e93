"""What a running service shows of its requests: every one once, and nothing a client could swell."""

from __future__ import annotations

import io
import json
import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry import configure_logging
from service.telemetry.lines import LONGEST_BYTES
from tests.service.conftest import Question, until_ready

Shown = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def lines() -> Iterator[Any]:
    """The lines the service writes, as text."""
    stream = io.StringIO()
    undo = configure_logging(Settings(log_format="json"), stream)
    yield lambda: stream.getvalue().splitlines()
    undo()


def shown(client: Any) -> Shown:
    text = client.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def grown(before: Shown, after: Shown, name: str) -> dict[str, float]:
    """What has been added to a counter, by its label values."""
    rows = {key: value - before.get(key, 0) for key, value in after.items() if key[0] == f"tosa_vqa_{name}"}
    return {" ".join(value for _, value in sorted(key[1])): more for key, more in rows.items() if more}


def test_numbers_and_lines_are_those_of_the_client(client: Any, lines: Any, question: Question) -> None:
    until_ready(client)  # a machine that stood still makes a service doubt its model for a moment
    before, question = shown(client), question.but(cache=False, method="tosa")
    answer = question.post(client, "json").json()
    question.but(keep_ratio=7).post(client, "json")
    question.but(images=(b"no image",)).post(client, "multipart")
    after = shown(client)
    assert grown(before, after, "requests_total") == {"/vqa 2xx": 1, "/vqa 4xx": 2}
    assert grown(before, after, "refused_total") == {"bad_image": 1, "keep_ratio_out_of_range": 1}
    assert grown(before, after, "answers_total") == {"no tosa": 1}
    assert grown(before, after, "visual_tokens_out_total") == {"tosa": answer["merge"]["tokens_out"]}
    assert grown(before, after, "observation_failures_total") == {}
    vision = after["tosa_vqa_stage_seconds_sum", frozenset({("stage", "vision"), ("method", "tosa")})]
    assert vision >= answer["timings_ms"]["vision"] / 1000 - 1e-6
    written = [json.loads(line) for line in lines()]
    assert [(line["event"], line["status"], line["code"]) for line in written] == [
        ("request", 200, None),
        ("request", 422, "keep_ratio_out_of_range"),
        ("request", 422, "bad_image"),
    ]
    assert written[0]["request_id"] == answer["request_id"] and "cubes" not in "".join(lines())
    assert written[0]["stages"]["vision"] == answer["timings_ms"]["vision"]


def test_a_storm_makes_no_series_and_few_lines(client: Any, lines: Any, question: Question) -> None:
    question.post(client, "json")
    before, chance, sent = shown(client), random.Random(1), 300
    for _ in range(sent):
        noise = "".join(chance.choices(string.ascii_letters + "%0a%0d%1b[31m/", k=30))
        headers = {"X-Request-ID": noise, "traceparent": noise, "User-Agent": noise, "X-API-Key": noise}
        match chance.randrange(4):
            case 0:
                client.get(f"/{noise}", headers=headers)
            case 1:
                client.post(f"/{noise}", headers=headers, content=noise.encode())
            case 2:
                client.post("/vqa", headers=headers, json={"question": noise * 50, noise: noise})
            case _:
                wrong = question.but(question=f"{noise}\r\nERROR \x1b[2J", method=noise)
                wrong.post(client, "multipart")
    after = shown(client)
    assert len(after) - len(before) < 100 and len(after) < 6000
    assert len(lines()) <= 2 * sent and all(len(line) < LONGEST_BYTES for line in lines())
    assert all(json.loads(line)["level"] == "INFO" for line in lines())
