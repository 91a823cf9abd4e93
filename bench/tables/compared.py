"""Rows of the comparison of all methods: their labels, and the captions of its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from bench.tables.markdown import load, of_model, percent, signed_with_ends, table

Row = Mapping[str, Any]


@cache
def result() -> dict[str, Any]:
    """Read the comparison."""
    return load("comparison")


def compared() -> list[Row]:
    """Drop the ablations."""
    names = set(result()["compared"])
    return [row for row in result()["settings"] if row["name"] in names]


def by_name() -> dict[str, Row]:
    return {row["name"]: row for row in result()["settings"]}


def method_label(row: Row) -> str:
    """Name a method, with its source of depth where that is not the frame's own."""
    if row["depth"] in (None, "true"):
        return row["method"]
    return f"{row['method']}, {row['depth'] if row['depth'] == 'x and y' else row['depth'] + ' depth'}"


def is_at(row: Row, keep_ratio: str) -> bool:
    """Whether a row is at a ratio, or is the unmerged baseline, which every table has."""
    return row["method"] == "none" or row["keep_ratio"] == float(keep_ratio)


def by_type(rows: Sequence[Row], cell: Callable[[Sequence[float]], str]) -> str:
    """Lay out accuracy by type of question, a column per row."""
    blind = result()["blind_guess"]
    heads = [
        f"{method_label(row)} {row['keep_ratio']:g}" if row["keep_ratio"] < 1 else method_label(row)
        for row in rows
    ]
    lines = [[kind, percent(blind[kind]), *(cell(row["accuracy"][kind]) for row in rows)] for kind in blind]
    return table(["type", "blind guess", *heads], lines)


def difference(values: Sequence[float] | None) -> str:
    """Format a difference in points, empty if there is nothing to compare with."""
    return "" if values is None else signed_with_ends(values)


def signed(shown: str) -> str:
    """Add a caption with the questions, the model and the machine."""
    split = result()["split"]
    questions = f"{split['questions']} questions about {split['frames']} frames of the {split['name']} split"
    return f"{shown}\n\nPercent; 95 % bootstrap intervals over frames. {questions}, {of_model(result())}."
