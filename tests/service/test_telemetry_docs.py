"""docs/observe.md says what the code says. New tables: python -m tests.service.test_telemetry_docs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.tables.observe import filled
from service.settings import Settings
from tests.service.conftest import running
from tests.vlm.conftest import write_checkpoint

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "observe.md"


def test_the_tables_are_fresh(client: Any) -> None:
    text, shown = PAGE.read_text(), client.get("/metrics").text
    assert filled(text, shown) == text, "run: python -m tests.service.test_telemetry_docs"
    assert "`tosa_vqa_stage_seconds`" in text and "`tosa_vqa_queue_depth`" in text and "`trace_id`" in text


def test_a_typed_row_is_noticed(client: Any) -> None:
    shown = client.get("/metrics").text
    for name in ("metrics", "gauges", "log_fields"):
        forged = PAGE.read_text().replace(
            f"<!-- generated: {name} -->\n", f"<!-- generated: {name} -->\n| x |\n"
        )
        assert filled(forged, shown) != forged


def test_every_alert_and_setting_is_on_the_page() -> None:
    text = PAGE.read_text()
    groups = yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == 8 and [name for name in alerts if f"`{name}`" not in text] == []
    for name in re.findall(r"TOSA_VQA_(\w+)", text):
        assert name.lower() in Settings.model_fields
    assert {"LOG_FORMAT", "LOG_QUESTIONS", "TRACE_ENDPOINT"} <= set(re.findall(r"TOSA_VQA_(\w+)", text))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "tiny")
        with running(checkpoint, depth_model="none") as client:
            PAGE.write_text(filled(PAGE.read_text(), client.get("/metrics").text))


if __name__ == "__main__":
    main()
