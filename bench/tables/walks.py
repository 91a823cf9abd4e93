"""Tables of the measurement on walks: methods across frames, budgets, and controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.tables.markdown import load as result_of
from bench.tables.markdown import of_model, percent, signed_with_ends, table, with_ends

Row = dict[str, Any]


def methods(budget: str) -> str:
    """Every method at one budget, of 8 frames and of 16."""
    result = result_of("walks")
    heads = ["frames", "method", "things", "minus ToSA per frame", "surface", "twice"]
    heads += ["right", "minus ToSA per frame", "counting", "ms: encode, select, answer"]
    rows = []
    for row in _true(result):
        if row["budget"] != int(budget):
            continue
        minus, ms = row.get("minus_tosa", {}), row["ms"]
        rows.append(
            [
                str(row["frames"]),
                _method(row),
                with_ends(row["things"]),
                _signed(minus.get("things")),
                percent(row["surface"][0]),
                percent(row["twice"][0]),
                _mean(row["accuracy"]["overall"]),
                _signed(minus.get("overall")),
                _mean(row["accuracy"].get("count", [])),
                f"{ms['encode']:.0f}, {ms['select']:.0f}, {ms['answer']:.0f}",
            ]
        )
    return f"{table(heads, rows)}\n\n{_said(result)}"


def budgets(measure: str) -> str:
    """The share of things or surface that is kept, or of right answers, by method, frames and budget."""
    result = result_of("walks")
    every = sorted({row["budget"] for row in _true(result)})
    found: dict[tuple[int, str], dict[int, float]] = {}
    for row in _true(result):
        values = row["accuracy"]["overall"] if measure == "accuracy" else row[measure]
        if values:
            found.setdefault((row["frames"], _method(row)), {})[row["budget"]] = values[0]
    rows = [
        [str(frames), method, *(percent(by[budget]) if budget in by else "" for budget in every)]
        for (frames, method), by in found.items()
    ]
    return f"{table(['frames', 'method', *map(str, every)], rows)}\n\n{_said(result)}"


def controls() -> str:
    """Wrong poses and depth: how alike the kept sets are to those of true geometry, and what is lost."""
    result = result_of("walks")
    heads = ["method", "geometry", "kept set alike", "things", "minus true geometry", "surface"]
    heads += ["right", "minus true geometry"]
    rows = []
    for row in result["settings"]:
        if row["geometry"] == "true":
            continue
        minus = row.get("minus_true", {})
        rows.append(
            [
                row["method"],
                row["geometry"],
                f"{row['alike'][0]:.2f}",
                percent(row["things"][0]),
                _signed(minus.get("things")),
                percent(row["surface"][0]),
                _mean(row["accuracy"]["overall"]),
                _signed(minus.get("overall")),
            ]
        )
    return f"{table(heads, rows)}\n\n{_said(result)}"


def _true(result: dict[str, Any]) -> list[Row]:
    return [row for row in result["settings"] if row["geometry"] == "true"]


def _method(row: Row) -> str:
    return row["method"] if row["inside"] == "none" else f"{row['inside']} + {row['method']}"


def _mean(values: Sequence[float]) -> str:
    return percent(values[0]) if values else ""


def _signed(values: Sequence[float] | None) -> str:
    return signed_with_ends(values) if values else ""


def _said(result: dict[str, Any]) -> str:
    split, near = result["split"], result["measures"]
    asked = f"{split['questions']} questions, by guessing {percent(split['blind_guess']['overall'])} right"
    what = f"surface: within {near['near_m']:g} m of a token; twice: within {near['same_m']:g} m of another"
    walks = f"{split['walks']} walks of the {split['name']} split"
    return f"{walks}; {asked}; {what}; 95 % intervals over walks; {of_model(result)}."
