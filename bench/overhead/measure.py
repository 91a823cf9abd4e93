"""One cell of the table: a number of requests of one client on one connection, and their percentiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from bench.overhead.clients import CLIENTS

WARM_UP = 3


@dataclass(frozen=True)
class Cell:
    """Name what is measured. server: now, before or plain. via: direct or haproxy."""

    server: str
    loop: str
    via: str
    client: str
    body_bytes: int


def measure(cell: Cell, url: str, requests: int) -> dict[str, Any]:
    """Ask on one connection and return milliseconds at the client and as reported, each as median and p95.

    client_ms: from the call to the parsed answer. transport_ms: that without the stages behind `receive`, so
    what it takes to bring a request there and its answer back. unseen_ms: client_ms minus timings_ms.total.
    """
    taken: list[float] = []
    reported: list[dict[str, Any]] = []
    with CLIENTS[cell.client](url, cell.body_bytes) as ask:
        for _ in range(WARM_UP):
            ask()
        for _ in range(requests):
            began = perf_counter()
            timings = ask()
            taken.append(1000 * (perf_counter() - began))
            reported.append(timings)
    totals = [one.get("total") or 0.0 for one in reported]
    receives = [one.get("receive") or 0.0 for one in reported]
    unseen = [ms - total for ms, total in zip(taken, totals, strict=True)]
    return {
        **vars(cell),
        "client_ms": _spread(taken),
        "total_ms": _spread(totals),
        "receive_ms": _spread(receives),
        "unseen_ms": _spread(unseen),
        "transport_ms": _spread([ms + receive for ms, receive in zip(unseen, receives, strict=True)]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    p95 = statistics.quantiles(values, n=20)[-1]
    return {"median": round(statistics.median(values), 2), "p95": round(p95, 2)}
