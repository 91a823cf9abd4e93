"""Tables of the dense probe: every condition and ratio, with differences from ToMe and from the control."""

from __future__ import annotations

from typing import Any

import pytest

from bench.tables import conditions, dense


def row(keep: float, name: str, method: str, shape: float, **more: Any) -> dict[str, Any]:
    return {
        "keep_ratio": keep,
        "name": name,
        "method": method,
        "shape": [shape] * 3,
        "distance": [0.1] * 3,
    } | more


def rows() -> list[dict[str, Any]]:
    gained = {"shape": [0.02, 0.01, 0.03], "distance": [-0.01, -0.02, -0.005]}
    others = {"minus_none": gained, "minus_tome": gained, "minus_control": gained}
    return [
        row(1.0, "none", "none", 0.9),
        *(row(keep, "tome", "tome", 0.8, minus_none=gained) for keep in (0.25, 0.1)),
        *(row(keep, "tosa auto, true", "tosa", 0.82, **others) for keep in (0.25, 0.1)),
    ]


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "conditions": {"clean": rows(), "dark:2": rows()},
        "together": rows(),
        "split": {"name": "test", "scenes": 60},
        "tower": {"digest": "abc", "steps": 1800},
        "machine": {"processor": "P", "threads": 1, "torch": "2"},
        "date": "2026-11-30T00:00:00",
    }
    monkeypatch.setattr(dense, "result_of", lambda name: found)


def test_conditions_and_ratios_are_rows_and_settings_are_columns(result: None) -> None:
    lines = dense.shape().splitlines()
    assert lines[0] == "| picture | tokens left | none | tome | tosa auto, true |"
    assert lines[2] == "| clean | 0.25 | 90.0 | 80.0 | 82.0, +2.0 (+1.0 to +3.0) |"
    assert [line.split(" | ")[0] for line in lines[2:8]] == ["| clean"] * 2 + ["| dark:2"] * 2 + [
        "| all together"
    ] * 2
    assert "60 plain rooms of the test split" in lines[-1]
    assert "10.0, -1.0 (-2.0 to -0.5)" in dense.distance()


def test_controls_have_a_row_for_every_setting(result: None) -> None:
    lines = dense.controls().splitlines()[2:6]
    assert [line.split(" | ")[1] for line in lines] == ["tome", "tome", "tosa auto, true", "tosa auto, true"]
    assert lines[0].endswith("|  |  |  |  |")


def test_a_comparison_under_conditions_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(accuracy: float) -> list[dict[str, Any]]:
        return [{"name": name, "accuracy": {"overall": [accuracy] * 3}} for name in ("none", "tosa")]

    nothing = {"minus_tome": None, "minus_none": None, "minus_control": None}
    gained = {"minus_tome": [0.02, 0.01, 0.03], "minus_none": [0.0, -0.01, 0.01], "minus_control": None}
    found = {
        "conditions": {"clean": asked(0.9), "dark:2": asked(0.8)},
        "together": [
            {"name": "none", "accuracy": [0.85] * 3} | nothing,
            {"name": "tosa", "accuracy": [0.86] * 3} | gained,
        ],
        "worst_third": {
            "conditions": ["dark:2"],
            "together": [{"name": "none", "accuracy": [0.8] * 3} | nothing],
        },
        "alone": {
            "clean": [{"name": "none", "accuracy": [0.9] * 3} | nothing],
            "dark:2": [],
        },
        "split": {"name": "test", "questions": 300, "frames": 79},
        "model": {"revision": "r"},
        "machine": {"processor": "P", "threads": 1, "torch": "2"},
        "date": "2026-11-30T00:00:00",
    }
    monkeypatch.setattr(conditions, "result_of", lambda name: found)
    lines = conditions.conditions().splitlines()
    assert lines[2:5] == [
        "| clean | 90.0 | 90.0 |",
        "| dark:2 | 80.0 | 80.0 |",
        "| all together | 85.0 | 86.0 |",
    ]
    assert "300 questions about 79 frames of the test split" in lines[-1]
    lines = conditions.differences().splitlines()
    assert lines[2:6] == [
        "| all | none | 85.0 |  |  |  |",
        "| all | tosa | 86.0 | +2.0 (+1.0 to +3.0) | +0.0 (-1.0 to +1.0) |  |",
        "| worst | none | 80.0 |  |  |  |",
        "| clean | none | 90.0 |  |  |  |",
    ]
    assert lines[-1].startswith("worst: dark:2. ")
