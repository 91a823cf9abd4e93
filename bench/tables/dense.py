"""Tables of the dense probe: shapes of things and errors of their distance, by condition and setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.tables.markdown import load as result_of
from bench.tables.markdown import of_machine, percent, signed_with_ends, table

Row = dict[str, Any]
TOGETHER = "together"


def shape() -> str:
    """Patches of things whose shape is right, in percent, and the difference from ToMe."""
    return _by_condition("shape", percent, signed_with_ends)


def distance() -> str:
    """Error of the logarithm of a thing's distance, in hundredths, and the difference from ToMe."""
    return _by_condition("distance", percent, signed_with_ends)


def controls() -> str:
    """Over all conditions together: every setting minus no merging, ToMe and another scene's depth."""
    result = result_of("dense")
    heads = ["tokens left", "setting", "shape", "minus none", "minus ToMe", "minus other depth"]
    heads += ["distance minus ToMe", "distance minus other depth"]
    rows = []
    for row in result[TOGETHER]:
        if row["method"] == "none":
            continue
        differences = [_difference(row, other, "shape") for other in ("none", "tome", "control")]
        differences += [_difference(row, other, "distance") for other in ("tome", "control")]
        rows.append([f"{row['keep_ratio']:g}", row["name"], percent(row["shape"][0]), *differences])
    return f"{table(heads, rows)}\n\n{_said(result)}"


def _by_condition(
    measure: str, mean: Callable[[float], str], difference: Callable[[Sequence[float]], str]
) -> str:
    result = result_of("dense")
    names = [row["name"] for row in _of_ratio(result[TOGETHER], _ratios(result)[0])]
    heads = ["picture", "tokens left", "none", *names]
    rows = []
    for label, described in (*result["conditions"].items(), ("all together", result[TOGETHER])):
        none = next(row for row in described if row["method"] == "none")
        for keep in _ratios(result):
            cells = [_cell(row, measure, mean, difference) for row in _of_ratio(described, keep)]
            rows.append([label, f"{keep:g}", mean(none[measure][0]), *cells])
    return f"{table(heads, rows)}\n\n{_said(result)}"


def _cell(
    row: Row, measure: str, mean: Callable[[float], str], difference: Callable[[Sequence[float]], str]
) -> str:
    found = mean(row[measure][0])
    return f"{found}, {difference(row['minus_tome'][measure])}" if "minus_tome" in row else found


def _difference(row: Row, other: str, measure: str) -> str:
    return signed_with_ends(row[f"minus_{other}"][measure]) if f"minus_{other}" in row else ""


def _ratios(result: dict[str, Any]) -> list[float]:
    return sorted({row["keep_ratio"] for row in result[TOGETHER] if row["method"] != "none"}, reverse=True)


def _of_ratio(described: Sequence[Row], keep: float) -> list[Row]:
    return [row for row in described if row["keep_ratio"] == keep and row["method"] != "none"]


def _said(result: dict[str, Any]) -> str:
    split, tower = result["split"], result["tower"]
    scenes = f"{split['scenes']} plain rooms of the {split['name']} split, paired 95 % intervals over rooms"
    return f"{scenes}; tower {tower['digest']} after {tower['steps']} steps, {of_machine(result)}."
