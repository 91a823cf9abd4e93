"""Draw accuracy against measured vision latency, with the Pareto front: docs/images/pareto.png.

python -m bench.pareto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.tables.markdown import ROOT, load
from evals.rooms.compare.report import seen_ms

PICTURE = ROOT / "docs" / "images" / "pareto.png"
MARKERS = {"constant": "o", "decreasing": "v", "increasing": "^"}
SHOWN = 16.0  # points of accuracy below the unmerged model; settings further below are counted, not drawn


def main() -> None:
    result = load("comparison")
    if result["latency"]["rounds"]:
        draw(result, PICTURE)
    else:
        print("not timed: nothing to draw")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw every setting of the comparison that was timed: a colour per method, a marker per schedule."""
    names, depth_ms = set(result["compared"]), result["latency"]["depth_ms"]
    rows = [row for row in result["settings"] if row["name"] in names and row["same_as"] is None]
    plain = next(row for row in rows if row["method"] == "none")
    lowest = 100 * plain["accuracy"]["overall"][0] - SHOWN
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots()
    shown = [(seen_ms(row, depth_ms), 100 * row["accuracy"]["overall"][0], row) for row in rows]
    drawn = [point for point in shown if point[1] >= lowest]
    _points(axes, drawn)
    _front(axes, [point for point in drawn if point[2]["name"] in result["pareto"]], result["pareto"])
    low, high = (100 * end for end in plain["accuracy"]["overall"][1:])
    axes.axhspan(low, high, color="grey", alpha=0.12, lw=0, label="none, 95 % interval")
    axes.set_xlabel("vision with depth, ms (median, batch 1)")
    axes.set_ylabel(f"accuracy on {result['split']['questions']} RoomQA questions, %")
    below = len(shown) - len(drawn)
    axes.set_title(f"All methods, ratios and schedules ({below} lie below what is shown)", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _points(axes: Axes, points: list[tuple[float, float, Mapping[str, Any]]]) -> None:
    kinds = list(dict.fromkeys((row["method"], row["depth"]) for _, _, row in points))
    for number, (method, depth) in enumerate(kinds):
        colour = f"C{number}" if method != "none" else "black"
        for schedule, marker in MARKERS.items():
            mine = [
                (ms, right)
                for ms, right, row in points
                if (row["method"], row["depth"], row["schedule"]) == (method, depth, schedule)
            ]
            if mine:
                label = ", ".join([method, *([f"{depth} depth"] if depth else []), schedule])
                label = method if method == "none" else label
                axes.scatter(*zip(*mine, strict=True), s=30, color=colour, marker=marker, label=label)


def _front(axes: Axes, points: list[tuple[float, float, Mapping[str, Any]]], numbers: Sequence[str]) -> None:
    """Draw the front, its settings numbered as in the table below the figure."""
    front = sorted(points, key=lambda point: point[0])
    axes.step(*_columns(front), where="post", color="black", lw=0.9, label="Pareto front")
    for ms, right, row in front:
        number = f"{numbers.index(row['name']) + 1}"
        axes.annotate(number, (ms, right), (-5, 3), fontsize=8, textcoords="offset points", ha="right")


def _columns(points: list[tuple[float, float, Mapping[str, Any]]]) -> tuple[list[float], list[float]]:
    return [ms for ms, _, _ in points], [right for _, right, _ in points]


if __name__ == "__main__":
    main()
