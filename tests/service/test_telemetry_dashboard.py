"""Dashboard and alert rules ask only for what the service shows; the dashboard is made by its script."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.pipeline.response_models import VqaResponse
from service.settings import Settings
from service.telemetry import Telemetry
from service.telemetry.labels import CODES, OUTCOMES, STAGE_NAMES, STATUSES
from tests.needs import needs
from tests.service.conftest import Question
from tests.service.outcomes import answer, answered, refused

DOCKER = Path(__file__).parents[2] / "docker"
RULES = DOCKER / "prometheus" / "rules.yml"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "tosa-vqa.json"
GAUGES = (
    "in_flight",
    "queue_depth",
    "running",
    "batch_limit",
    "heartbeat_age_seconds",
    "frame_cache_bytes",
    "frame_cache_entries",
)
LANGUAGE_GAUGES = ("language_servers_up", "language_running")
"""Only with language servers."""
VALUES = {
    "code": CODES.values,
    "stage": STAGE_NAMES.values,
    "outcome": OUTCOMES.values,
    "status": STATUSES.values,
    "result": {"hit", "miss"},
}
TARGET_LABELS = {"instance", "job"}  # put there by Prometheus


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(DOCKER / "grafana")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("make_dashboard")
    for name in ("make_dashboard", "panels", "queries"):
        del sys.modules[name]


def full_exposition() -> str:
    """Everything that can be shown: keys are set, all is watched, every counter has counted."""
    servers = {"language": "vllm", "language_urls": "http://127.0.0.1:1"}
    telemetry = Telemetry(Settings.model_validate({"api_keys": "robot=a-long-secret-1", **servers}))
    for name in (*GAUGES, *LANGUAGE_GAUGES):
        telemetry.watch(name, name, lambda: 1)
    depth: dict[str, Any] = dict.fromkeys(("kind", "unit", "range", "scale", "preset", "valid_ratio"))
    estimator = {"id": "d", "revision": "0", "licence": None}
    depth |= {"guessed": [], "notes": [], "source": "estimate", "estimator": estimator, "cached": True}
    telemetry.ended(answered(key="robot", answers=(answer(depth=depth),)))
    telemetry.ended(refused("overloaded"))
    telemetry.ended(refused("client_gone", 499))
    telemetry.ended(answered(answers=(VqaResponse.model_construct(),)))  # cannot be written down
    telemetry.batch_ended("tosa", 1, 1, 0.1, "ok")
    telemetry.frames_looked_up(1, 1)
    telemetry.language_ended("ok", 2, 1)
    return telemetry.exposition()[0].decode()


def labels_by_name(text: str) -> dict[str, set[str]]:
    """The labels of every series, by its full name."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queried = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    return [*shown, *queried, *(rule["expr"] for rule in rules())]


def wrong_in(query: str, known: dict[str, set[str]], recorded: set[str]) -> list[str]:
    """What a query asks for that is never there."""
    wrong = []
    for name in re.findall(r"\b\w+:\w+:\w+", query):
        wrong += [] if name in recorded else [f"{name} is not recorded"]
    for name, where in re.findall(r"(?<![:\w])((?:tosa_vqa|process|python)_\w+)(?:\{(.*?)\})?", query):
        if name not in known:
            wrong.append(f"{name} is not shown")
            continue
        for label, values in re.findall(r'(\w+)=~?"(.*?)"', where):
            if label not in known[name] | TARGET_LABELS:
                wrong.append(f"{name} has no label {label}")
            if label in VALUES:
                wrong += [f"{one} is no {label}" for one in values.split("|") if one not in VALUES[label]]
    return wrong


def test_every_query_asks_for_what_is_there() -> None:
    known, recorded = labels_by_name(full_exposition()), {rule.get("record", "") for rule in rules()}
    assert len(queries()) >= 60
    assert [wrong for query in queries() for wrong in wrong_in(query, known, recorded)] == []


@pytest.mark.parametrize(
    "query",
    [
        "rate(tosa_vqa_request_total[5m])",
        "tosa_vqa_requests_total",
        'tosa_vqa_requests_total{method="tosa"}',
        'sum(tosa_vqa_refused_total{code=~"internal|nonsense"})',
        "job:tosa_vqa_nothing:rate_5m",
        "process_memory_bytes",
    ],
)
def test_the_check_of_queries_can_fail(query: str) -> None:
    known = {"tosa_vqa_requests": {"route"}, "tosa_vqa_refused_total": {"code"}}
    if query == "tosa_vqa_requests_total":
        known["tosa_vqa_requests_total_"] = set()
    elif query.startswith("tosa_vqa_requests_total{"):
        known["tosa_vqa_requests_total"] = {"route"}
    assert wrong_in(query, known, set())


def test_every_metric_of_ours_is_on_the_dashboard_or_in_a_rule() -> None:
    queried = " ".join(queries())
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in labels_by_name(full_exposition())}
    assert [name for name in sorted(names) if name.startswith("tosa_vqa_") and name not in queried] == []


def test_a_running_service_watches_what_the_dashboard_shows(client: Any, question: Question) -> None:
    assert question.post(client, "json").status_code == 200
    shown = labels_by_name(client.get("/metrics").text)
    assert [name for name in GAUGES if f"tosa_vqa_{name}" not in shown] == []
    assert "method" in shown["tosa_vqa_batch_rows_bucket"] and "stage" in shown["tosa_vqa_stage_seconds_sum"]


def test_the_dashboard_is_what_its_script_makes(script: ModuleType) -> None:
    assert DASHBOARD.read_text() == script.text(), "run: python docker/grafana/make_dashboard.py"
    assert script.text() == script.text()


def test_panels_lie_side_by_side(script: ModuleType) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in script.dashboard()["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells and max(x for x, _ in covered) < 24, panel["title"]
        cells |= covered


def test_alerts_say_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 8
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "action"} <= alert["annotations"].keys(), alert["alert"]


@needs("promtool")
def test_promtool_has_no_objection() -> None:
    config = DOCKER / "prometheus" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", config], check=True, capture_output=True, timeout=600)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=full_exposition(), text=True, capture_output=True, timeout=60
    )
    problems = [line for line in checked.stdout.splitlines() if line.startswith("tosa_vqa_")]
    assert problems == [], checked.stdout
