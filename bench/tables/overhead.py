"""Tables of what a client waits for beside the work, and the bars it is held to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.tables.markdown import load, of_machine, table

FRAME_BYTES, FRAME_MS = 230_000, 5.0
"""A frame of a camera, and the most that may be added to it."""
PLAIN_RATIO, PLAIN_MS = 1.3, 2.0
"""The most at other sizes: this times plain FastAPI and this beside."""
HEADS = ["body", "client", "through", "before", "now", "not in `timings_ms`", "plain FastAPI", "bar"]

Run = Mapping[str, Any]


def overhead(loop: str) -> str:
    """Every size, client and way on one event loop, now beside before and plain FastAPI."""
    result = load("overhead")
    found = {_key(run): run for run in result["runs"] if run["loop"] == loop}
    rows = [_row(run, found) for run in found.values() if run["server"] == "now"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    how = f"Milliseconds, median (95th percentile) of {result['requests']} requests on one connection"
    where = f"{versions}; Python {result['machine']['python']}, {of_machine(result)}"
    return f"{table(HEADS, rows)}\n\n{how}. {where}."


def _key(run: Run) -> tuple[Any, ...]:
    return run["server"], run["body_bytes"], run["client"], run["via"]


def _row(run: Run, found: Mapping[tuple[Any, ...], Run]) -> list[str]:
    before, plain = (found.get((server, *_key(run)[1:])) for server in ("before", "plain"))
    return [
        f"{run['body_bytes'] // 1000:,} KB",
        run["client"],
        run["via"],
        _spread(before, "transport_ms"),
        _spread(run, "transport_ms"),
        _spread(run, "unseen_ms"),
        _spread(plain, "transport_ms"),
        _bar(run, plain),
    ]


def _bar(run: Run, plain: Run | None) -> str:
    """Say what the median of client time minus `timings_ms.total` may be at most, and whether it is."""
    if run["body_bytes"] == FRAME_BYTES:
        limit = FRAME_MS
    elif plain is None:
        return ""
    else:
        limit = PLAIN_RATIO * plain["transport_ms"]["median"] + PLAIN_MS
    is_held = run["unseen_ms"]["median"] <= limit
    return f"{limit:.1f}, {'held' if is_held else 'missed'}"


def _spread(run: Run | None, name: str) -> str:
    return "" if run is None else f"{run[name]['median']:.1f} ({run[name]['p95']:.1f})"
