"""Medians and ranges over the rounds, as tables."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.peers.bars import quiet_parts

Parts = dict[str, Any]
COLUMNS: dict[str, Callable[[Parts], float]] = {
    "1 client, p50 ms": lambda parts: parts["c1"]["latency_ms"]["p50"],
    "1 client, p99 ms": lambda parts: parts["c1"]["latency_ms"]["p99"],
    "4 clients, answers/s": lambda parts: parts["c4"]["throughput"],
    "16 clients, answers/s": lambda parts: parts["full" if "full" in parts else "c16"]["throughput"],
    "64 clients, answers/s": lambda parts: parts["c64"]["throughput"],
    "16 clients, p99 ms": lambda parts: parts["c16"]["latency_ms"]["p99"],
    "probe at 16, p99 ms": lambda parts: parts["probe"]["latency_ms"]["p99"],
    "fresh after 20 abandoned, ms": lambda parts: parts["abandoned"]["fresh_ms"],
}
CPU_COLUMNS: dict[str, Callable[[Parts], float]] = {
    "server, cores": lambda parts: parts["c16"]["cores"]["server"],
    "client, cores": lambda parts: parts["c16"]["cores"]["client"],
    "others, cores": lambda parts: parts["c16"]["cores"]["others"],
    "start, s": lambda parts: parts["start_s"],
}


def rows(result: dict[str, Any], columns: dict[str, Callable[[Parts], float]]) -> list[list[str]]:
    """Return a row per server: its title, then the median and range of each column."""
    found = []
    for name, title in result["titles"].items():
        parts = [run["parts"] for run in result["runs"] if run["arm"] == name and run["parts"]]
        if parts:
            found.append([title, *(_cell(parts, value) for value in columns.values())])
    return found


def overload_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row per server that refuses: what was accepted and refused, and how fast."""
    found = []
    for name, title in result["titles"].items():
        parts = [run["parts"] for run in result["runs"] if run["arm"] == name and "overload" in run["parts"]]
        if parts:
            found.append([title, *(_cell(parts, value) for value in OVERLOAD_COLUMNS.values())])
    return found


OVERLOAD_COLUMNS: dict[str, Callable[[Parts], float]] = {
    "arrivals/s": lambda parts: parts["overload"]["rate"],
    "answers/s": lambda parts: parts["overload"]["throughput"],
    "accepted, p99 ms": lambda parts: parts["overload"]["latency_ms"]["p99"],
    "at capacity, p99 ms": lambda parts: parts["limited c16"]["latency_ms"]["p99"],
    "refused, p99 ms": lambda parts: parts["overload"]["refused_ms"]["p99"],
    "lost": lambda parts: parts["overload"]["lost"],
}


def bar_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row per bar."""
    return [
        [
            one["bar"],
            one["limit"],
            f"{one['median']:g}",
            f"{one['range'][0]:g} to {one['range'][1]:g}",
            f"{'met' if one['met'] else 'not met'}{', noisy' if one['noisy'] else ''}",
        ]
        for one in result["bars"]
    ]


def noisy(result: dict[str, Any]) -> tuple[int, int]:
    """Return how many parts other programs disturbed in every try, and how many parts there are."""
    parts = [part for run in result["runs"] for part in run["parts"].values() if isinstance(part, dict)]
    return sum(part["noisy"] for part in parts), len(parts)


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print all tables."""
    _print(console, "servers, median (range) of rounds", ["", *COLUMNS], rows(result, COLUMNS))
    _print(console, "processor at 16 clients", ["", *CPU_COLUMNS], rows(result, CPU_COLUMNS))
    _print(console, "24x overload", ["", *OVERLOAD_COLUMNS], overload_rows(result))
    _print(console, "bars", ["bar", "limit", "median", "range", ""], bar_rows(result))
    disturbed, parts = noisy(result)
    console.print(f"{disturbed} of {parts} parts were disturbed by other programs in every try.")


def _print(console: Console, title: str, heads: list[str], lines: list[list[str]]) -> None:
    table = Table(title=title, box=SIMPLE_HEAD)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _cell(rounds: list[Parts], value: Callable[[Parts], float]) -> str:
    values = _values([quiet_parts(parts) for parts in rounds], value) or _values(rounds, value)
    if not values:
        return ""
    median = _number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({_number(min(values))} to {_number(max(values))})"


def _values(rounds: list[Parts], value: Callable[[Parts], float]) -> list[float]:
    values = []
    for parts in rounds:
        with contextlib.suppress(KeyError, TypeError):  # not measured of this arm, or nothing answered
            values.append(value(parts))
    return values


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
