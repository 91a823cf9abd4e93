"""The numbers of /metrics are those of the requests, and no client can make them many."""

from __future__ import annotations

import random
import re
import string
import time
from statistics import median
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.pipeline.response_models import MergeDone, VqaResponse
from service.settings import Settings
from service.telemetry import RequestOutcome, Telemetry
from service.telemetry.labels import CODES, METHOD_NAMES, OUTCOMES, ROUTES, STAGE_NAMES, WHERES
from service.telemetry.registry import PREFIX
from service.timing import STAGES, TimingsMs
from tests.service.outcomes import TIMINGS, answer, answered, refused


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(Settings(log_format="json"))


def samples(telemetry: Telemetry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = telemetry.exposition()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((f"tosa_vqa_{name}", frozenset(labels.items())))


def test_an_answer_is_counted_by_method(telemetry: Telemetry) -> None:
    telemetry.ended(answered())
    assert value(telemetry, "requests_total", route="/vqa", status="2xx") == 1
    assert value(telemetry, "request_seconds_sum", route="/vqa", method="tosa") == 0.101
    assert value(telemetry, "answers_total", method="tosa", cached="no") == 1
    assert value(telemetry, "visual_tokens_in_total", method="tosa") == 576
    assert value(telemetry, "visual_tokens_out_total", method="tosa") == 144
    assert value(telemetry, "prompt_tokens_total", method="tosa") == 160
    assert value(telemetry, "generated_tokens_total", method="tosa") == 3
    assert value(telemetry, "time_to_first_token_seconds_sum", method="tosa") == pytest.approx(0.08)
    assert value(telemetry, "time_per_token_seconds_sum", method="tosa") == pytest.approx(0.01)
    assert value(telemetry, "refused_total", code="other") is None


def test_the_dtype_that_runs_is_shown_once_the_model_is_loaded(telemetry: Telemetry) -> None:
    assert build_dtypes(telemetry) == ["auto"]
    telemetry.loaded("bfloat16")
    assert build_dtypes(telemetry) == ["bfloat16"]


def build_dtypes(telemetry: Telemetry) -> list[str]:
    return [dict(labels)["dtype"] for name, labels in samples(telemetry) if name == "tosa_vqa_build_info"]


def test_a_service_shows_the_dtype_of_its_checkpoint(client: TestClient) -> None:
    assert 'dtype="float32"' in client.get("/metrics").text


def test_stages_that_ran_are_observed_and_others_are_not(telemetry: Telemetry) -> None:
    telemetry.ended(answered())
    for stage in STAGE_NAMES.values:
        spent = value(telemetry, "stage_seconds_sum", stage=stage, method="tosa")
        expected = TIMINGS[stage]
        assert spent == (None if expected is None else pytest.approx(expected / 1000)), stage


def test_a_comparison_is_one_request_and_several_answers(telemetry: Telemetry) -> None:
    telemetry.ended(answered(route="/vqa/compare", answers=(answer("tosa"), answer("tome"), answer("tome"))))
    assert value(telemetry, "request_seconds_count", route="/vqa/compare", method="several") == 1
    assert value(telemetry, "answers_total", method="tome", cached="no") == 2
    assert value(telemetry, "stage_seconds_count", stage="vision", method="tosa") == 1


def test_what_was_remembered_is_counted(telemetry: Telemetry) -> None:
    depth = {"kind": "relative", "unit": None, "range": None, "scale": None, "preset": None}
    depth |= {"valid_ratio": 1.0, "guessed": [], "notes": [], "source": "estimate"}
    depth |= {"estimator": {"id": "d", "revision": "0", "licence": None}}
    timings = {**TIMINGS, "vision": None}
    telemetry.ended(
        answered(answers=(answer(cached=True, timings_ms=timings, depth={**depth, "cached": True}),))
    )
    telemetry.ended(answered(answers=(answer(depth={**depth, "cached": False}),)))
    telemetry.frames_looked_up(3, 1)
    assert value(telemetry, "answers_total", method="tosa", cached="yes") == 1
    assert value(telemetry, "estimate_cache_lookups_total", result="hit") == 1
    assert value(telemetry, "estimate_cache_lookups_total", result="miss") == 1
    assert value(telemetry, "frame_cache_lookups_total", result="hit") == 3
    assert value(telemetry, "frame_cache_lookups_total", result="miss") == 1
    assert value(telemetry, "stage_seconds_count", stage="vision", method="tosa") == 1


def test_refusals_are_counted_by_code_and_the_client_gone_by_place(telemetry: Telemetry) -> None:
    telemetry.ended(refused())
    telemetry.ended(refused("client_gone", 499, "queue", method="tome"))
    assert value(telemetry, "refused_total", code="overloaded") == 1
    assert value(telemetry, "refused_total", code="client_gone") is None
    assert value(telemetry, "cancelled_total", where="queue") == 1
    assert value(telemetry, "cancelled_total", where="admission") == 0
    assert value(telemetry, "requests_total", route="/vqa", status="5xx") == 1
    assert value(telemetry, "request_seconds_count", route="/vqa", method="tome") == 1


def test_a_refusal_after_waiting_shows_where_its_time_went(telemetry: Telemetry) -> None:
    late = answered(
        status=504,
        code="deadline_exceeded",
        where="queue",
        answers=(),
        method="tome",
        timings_ms=TimingsMs.model_validate({**dict.fromkeys(STAGES), "queue": 500.0, "total": 500.0}),
    )
    telemetry.ended(late)
    assert value(telemetry, "stage_seconds_sum", stage="queue", method="tome") == 0.5


def test_batches_are_counted(telemetry: Telemetry) -> None:
    telemetry.batch_ended("tome", 3, 6, 0.2, "out_of_memory")
    assert value(telemetry, "batches_total", method="tome", outcome="out_of_memory") == 1
    assert value(telemetry, "batch_rows_sum", method="tome") == 3
    assert value(telemetry, "batch_images_sum", method="tome") == 6
    assert value(telemetry, "batch_seconds_sum", method="tome") == 0.2


def test_keys_are_counted_by_name_and_only_where_there_are_keys(telemetry: Telemetry) -> None:
    telemetry.ended(answered(key="robot", units=2.5))
    assert b"tosa_vqa_key" not in telemetry.exposition()[0]
    keyed = Telemetry(Settings.model_validate({"api_keys": "robot=a-long-secret-1,arm=a-long-secret-2"}))
    keyed.ended(answered(key="robot", units=2.5))
    keyed.ended(answered(key="someone"))
    assert value(keyed, "key_requests_total", key="robot") == 1
    assert value(keyed, "key_units_total", key="robot") == 2.5
    assert value(keyed, "key_requests_total", key="other") == 1
    assert b"secret" not in keyed.exposition()[0]


def test_rare_events_are_shown_before_the_first_of_them(telemetry: Telemetry) -> None:
    for name, labels in (
        ("refused_total", {"code": "internal"}),
        ("cancelled_total", {"where": "queue"}),
        ("batches_total", {"method": "tosa", "outcome": "out_of_memory"}),
        ("observation_failures_total", {"part": "log"}),
    ):
        assert value(telemetry, name, **labels) == 0


def test_two_apps_do_not_meet(telemetry: Telemetry) -> None:
    other = Telemetry(Settings())
    other.ended(answered())
    assert value(telemetry, "requests_total", route="/vqa", status="2xx") == 0
    assert value(other, "requests_total", route="/vqa", status="2xx") == 1


def test_gauges_are_read_at_the_scrape(telemetry: Telemetry) -> None:
    depth = [1.0]
    telemetry.watch("queue_depth", "Requests that wait.", lambda: depth[0])
    assert value(telemetry, "queue_depth") == 1
    depth[0] = 4
    assert value(telemetry, "queue_depth") == 4
    assert value(telemetry, "unreadable_gauges") == 0


def test_a_gauge_that_raises_is_left_out_and_said_once(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.watch("broken", "Never there.", lambda: 1 / 0)
    telemetry.watch("running", "Batches that run.", lambda: 1)
    for _ in range(3):
        assert value(telemetry, "broken") is None
    assert (value(telemetry, "running"), value(telemetry, "unreadable_gauges")) == (1, 1)
    assert [record.message for record in caplog.records] == ["gauge broken cannot be read"]


def test_what_cannot_be_written_down_fails_no_request(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.ended(answered(answers=(VqaResponse.model_construct(),)))
    failed = value(telemetry, "observation_failures_total", part="metrics")
    assert failed == 1 and "metrics could not be written" in caplog.text
    telemetry.ended(answered())
    assert value(telemetry, "requests_total", route="/vqa", status="2xx") >= 1  # type: ignore[operator]


def _noise(chance: random.Random) -> Any:
    if chance.random() < 0.05:
        return chance.choice([None, 7, b"x", ("a",), "", "\ud800", "a\nb", "x" * 5000])
    return "/" + "".join(chance.choices(string.printable, k=12))


def _noisy(chance: random.Random) -> RequestOutcome:
    merge = MergeDone.model_construct(**{**dict(answer().merge), "method": _noise(chance) or "-"})
    body = answer().model_copy(update={"merge": merge})
    values = {name: _noise(chance) for name in ("route", "code", "where", "key", "method", "request_id")}
    status = chance.choice([0, 99, 200, 422, 599, 700, -1])
    return answered(**values, status=status, answers=chance.choice([(), (body,)]))


def test_a_hundred_thousand_random_values_make_no_series() -> None:
    telemetry = Telemetry(Settings.model_validate({"api_keys": "robot=a-long-secret-1"}))
    chance = random.Random(5)
    for _ in range(20_000):  # four labels of each are random
        telemetry._metrics.ended(_noisy(chance))
    for _ in range(1_000):
        telemetry.batch_ended(str(_noise(chance)), 1, 1, 0.1, str(_noise(chance)))
    assert len(samples(telemetry)) < 500


def test_all_series_there_can_be_are_few() -> None:
    names = ",".join(f"robot{number}=a-long-secret-{number}" for number in range(300))
    telemetry = Telemetry(Settings.model_validate({"api_keys": names}))
    for method in (*METHOD_NAMES.values, "?"):
        for route in (*ROUTES.values, "?"):
            telemetry.ended(answered(route=route, answers=(answer(method),)))
        for cached in (True, False):
            timings = dict.fromkeys(TIMINGS, 1.0)
            telemetry.ended(answered(answers=(answer(method, cached=cached, timings_ms=timings),)))
        for outcome in OUTCOMES.values:
            telemetry.batch_ended(method, 1, 1, 0.1, outcome)
    for code in CODES.values:
        telemetry.ended(refused(code))
    for where in WHERES.values:
        telemetry.ended(refused("client_gone", 499, where))
    for number in range(300):
        telemetry.ended(answered(key=f"robot{number}"))
    assert 3000 < len(samples(telemetry)) < 7000


def test_the_guard_of_the_series_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry, chance = Telemetry(Settings()), random.Random(5)
    monkeypatch.setattr("service.telemetry.metrics.ROUTES", str)
    for _ in range(200):
        telemetry.ended(answered(route="/" + str(chance.random())))
    assert len(samples(telemetry)) > 500


def lint(text: str) -> list[str]:
    """What promtool check metrics would say of our own metrics, and what our own rules add."""
    problems = []
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(PREFIX):
            if not family.name.startswith(("process_", "python_")):
                problems.append(f"{family.name} has no prefix of ours")
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        if not family.documentation.endswith("."):
            problems.append(f"{name} has no help")
        if family.type == "unknown" or (family.type != "counter") == name.endswith("_total"):
            problems.append(f"{name} has the wrong type: {family.type}")
        if re.search(r"_(ms|milliseconds|mib|kib|count|sum|bucket|percent|ratio|created)(_|$)", name):
            problems.append(f"{name} is not in base units or has a reserved end")
        for sample in family.samples:
            problems += [
                f"{name}: label {label}" for label in sample.labels if not re.fullmatch("[a-z]+", label)
            ]
    return problems


def test_the_exposition_is_clean(telemetry: Telemetry) -> None:
    telemetry.ended(answered())
    telemetry.batch_ended("tome", 1, 1, 0.1, "ok")
    telemetry.watch("frame_cache_bytes", "Memory of encoded frames", lambda: 12)
    body, kind = telemetry.exposition()
    assert kind.startswith("text/plain; version=") and lint(body.decode()) == []
    assert b"process_resident_memory_bytes" in body and b"_created" not in body


@pytest.mark.parametrize(
    "wrong",
    [
        "# HELP tosa_vqa_a_ms A.\n# TYPE tosa_vqa_a_ms gauge\ntosa_vqa_a_ms 1\n",
        "# HELP tosa_vqa_a_total A.\n# TYPE tosa_vqa_a_total gauge\ntosa_vqa_a_total 1\n",
        "# TYPE tosa_vqa_a gauge\ntosa_vqa_a 1\n",
        "# HELP other A.\n# TYPE other gauge\nother 1\n",
    ],
)
def test_the_lint_can_fail(wrong: str) -> None:
    assert lint(wrong)


def test_an_ending_costs_little(telemetry: Telemetry) -> None:
    spent = []
    for _ in range(300):
        start = time.thread_time()
        telemetry.ended(answered())
        spent.append(time.thread_time() - start)
    assert median(spent) < 0.002  # 0.2 ms is wanted and measured on a machine of its own
