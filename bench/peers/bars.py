"""The bars that the measured rounds have to meet, and the verdict on each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Round = dict[str, dict[str, Any]]  # the parts of one round, by arm


@dataclass(frozen=True)
class Bar:
    """One promise: the median of `value` over the rounds is at most (or at least) `limit`.

    Rounds that others disturbed count only where there are no quiet ones, and the verdict says so.
    """

    name: str
    limit: float
    value: Callable[[Round], float]
    at_most: bool = True
    unit: str = ""
    everywhere: bool = False  # disturbed rounds count, too

    def judged(self, rounds: list[Round]) -> dict[str, Any] | None:
        """Return value, range and verdict; None if no round has the parts it needs."""
        values = list(self._values(rounds if self.everywhere else [quiet(one) for one in rounds]))
        is_noisy = not values
        values = values or list(self._values(rounds))
        if not values:
            return None
        median = statistics.median(values)
        met = median <= self.limit if self.at_most else median >= self.limit
        return {
            "bar": self.name,
            "limit": f"{'at most' if self.at_most else 'at least'} {self.limit:g}{self.unit}",
            "median": round(median, 3),
            "range": [round(min(values), 3), round(max(values), 3)],
            "rounds": len(values),
            "noisy": is_noisy,
            "met": met,
        }

    def _values(self, rounds: list[Round]) -> Iterator[float]:
        for one in rounds:
            try:
                yield self.value(one)
            except (KeyError, TypeError):  # an arm is not measured yet, or answered nothing
                continue


def quiet(found: Round) -> Round:
    """Drop the parts that other programs disturbed in every try."""
    return {arm: quiet_parts(parts) for arm, parts in found.items()}


def quiet_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """Drop the disturbed parts of one arm."""
    return {name: part for name, part in parts.items() if not (isinstance(part, dict) and part.get("noisy"))}


def _throughput_against(other: str, part: str) -> Callable[[Round], float]:
    def ratio(found: Round) -> float:
        against = found[other]["full" if other == "direct" else part]
        return found["ours"][part]["throughput"] / against["throughput"]

    return ratio


def _added_ms(found: Round) -> float:
    return found["ours"]["c1"]["latency_ms"]["p50"] - found["direct"]["c1"]["latency_ms"]["p50"]


def _probe_ms(found: Round) -> float:
    return found["ours"]["probe"]["latency_ms"]["p99"]


def _fresh(found: Round) -> float:
    return found["ours"]["abandoned"]["fresh_ms"] / found["ours"]["c1"]["latency_ms"]["p50"]


def _overload(found: Round) -> float:
    return found["ours"]["overload"]["latency_ms"]["p99"] / found["ours"]["limited c16"]["latency_ms"]["p99"]


def _refused_ms(found: Round) -> float:
    return found["ours"]["overload"]["refused_ms"]["p99"]


def _unaccounted(found: Round) -> float:
    parts = [part for part in found["ours"].values() if isinstance(part, dict) and "lost" in part]
    return sum(part["lost"] + part["failed"] for part in parts)


BARS = (
    Bar("latency added to a direct call, one client", 5, _added_ms, unit=" ms"),
    *(
        Bar(f"throughput against {title}, {part[1:]} clients", limit, _throughput_against(other, part), False)
        for other, title, limit in (
            ("direct", "the engine with full batches", 0.95),
            ("litserve", "LitServe", 1.0),
            ("executor", "the competent FastAPI", 1.0),
        )
        for part in ("c16", "c64")
    ),
    Bar("/livez at 16 clients, p99", 25, _probe_ms, unit=" ms"),
    Bar("fresh request after 20 abandoned, against one alone", 2, _fresh),
    Bar("24x overload: p99 of accepted against p99 at capacity", 2.5, _overload),
    Bar("24x overload: refused within, p99", 50, _refused_ms, unit=" ms"),
    Bar("requests of ours lost or failed", 0, _unaccounted, everywhere=True),
)


def judge(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdict on every bar that can be judged."""
    rounds: dict[int, Round] = {}
    for run in runs:
        rounds.setdefault(run["round"], {})[run["arm"]] = run["parts"]
    return [verdict for bar in BARS if (verdict := bar.judged(list(rounds.values()))) is not None]
