"""docs/observe.md names every alert, and no setting or metric that the service does not have."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observe.md").read_text()
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text()


def test_every_alert_is_on_the_page() -> None:
    groups = yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == 8 and [name for name in alerts if f"`{name}`" not in PAGE] == []


def test_the_settings_of_telemetry_are_on_the_page() -> None:
    named = set(re.findall(r"TOSA_VQA_(\w+)", PAGE))
    assert {"LOG_FORMAT", "LOG_QUESTIONS", "TRACE_ENDPOINT"} <= named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_metric_of_the_page_is_in_the_reference() -> None:
    listed = set(re.findall(r"tosa_vqa_\w+", METRICS))
    assert len(listed) > 25
    for name in re.findall(r"tosa_vqa_\w+", PAGE):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in listed, name
