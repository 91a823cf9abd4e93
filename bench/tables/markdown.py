"""The form of numbers and tables in the documentation, and the folder of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"


def load(name: str) -> dict[str, Any]:
    """Read a result by its name."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def load_if_measured(name: str) -> dict[str, Any] | None:
    """Read a result by its name, None where nothing was measured yet."""
    return load(name) if (RESULTS / f"{name}.json").exists() else None


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> str:
    """Write a table; all columns but the first are aligned right, unless `right` is false."""
    lines = [heads, ["---", *("---:" if right else "---" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def prose(text: str) -> str:
    """Put a text of the code into one cell: on one line, without what markdown would read as markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def setting(run: dict[str, Any]) -> str:
    """Name a run by method and ratio."""
    return "none" if run["method"] == "none" else f"{run['method']} {run['keep_ratio']:g}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def with_ends(values: Sequence[float]) -> str:
    """Write a mean and the ends of its interval, in percent."""
    mean, low, high = map(percent, values)
    return f"{mean} ({low} to {high})"


def signed_with_ends(values: Sequence[float]) -> str:
    """Write a difference and the ends of its interval, in points."""
    mean, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{mean} ({low} to {high})"


def of_model(result: dict[str, Any]) -> str:
    """Name the model, the machine and the day of a result."""
    return f"model revision {result['model']['revision']}, {of_machine(result)}"


def of_machine(result: dict[str, Any]) -> str:
    """Name the machine and the day of a result."""
    machine, date = result["machine"], result["date"][:10]
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return f"{machine['processor']}, {threads}, torch {machine['torch']}, {date}"
