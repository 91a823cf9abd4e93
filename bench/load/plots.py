"""Plots of a load test: latency by mode; answers, refusals and queue over time. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

TIMES = ("p50", "p90", "p99")
BAR = 0.26


def plot(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the scenarios that have a plot; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    scenarios, drawn = result["scenarios"], []
    if "mixed" in scenarios:
        drawn.append(_modes(scenarios["mixed"]["modes"], folder / "load-latency.png"))
    if "overload" in scenarios:
        drawn.append(_overload(scenarios["overload"], folder / "load-overload.png"))
    return drawn


def _modes(modes: dict[str, Any], path: Path) -> Path:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    shown = {name: one["latency_ms"] for name, one in modes.items() if one["latency_ms"]}
    for offset, name in enumerate(TIMES):
        positions = [index + (offset - 1) * BAR for index in range(len(shown))]
        axes.bar(positions, [latency[name] for latency in shown.values()], BAR * 0.92, label=name)
    axes.set_xticks(range(len(shown)), list(shown))
    axes.set_ylabel("latency, ms")
    axes.set_title("All modes mixed, at 60 % of capacity")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)
    return path


def _overload(measured: dict[str, Any], path: Path) -> Path:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    rates, queue = figure.subplots(2, 1, sharex=True)
    for name in ("answers", "refusals"):
        rates.plot(*_columns(measured[f"{name}_over_time"]), label=name)
    rates.set_yscale("symlog")
    rates.set_ylabel("per second")
    rates.set_title(f"Arrivals at {measured['factor']} times the capacity")
    rates.legend()
    for name, points in measured["gauges"].items():
        queue.step(*_columns(points), where="post", label=name)
    queue.set_ylabel("requests" if measured["gauges"] else "no /metrics")
    queue.set_xlabel("seconds")
    if measured["gauges"]:
        queue.legend()
    figure.savefig(path, dpi=120)
    return path


def _columns(points: list[list[float]]) -> tuple[list[float], list[float]]:
    return [at for at, _ in points], [value for _, value in points]
