"""CPU use during a measurement: by the server, by this client, and by other programs."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import Any

import psutil


class CpuShares:
    """Count CPU time from now on; `shares` returns the average number of cores that each has used."""

    def __init__(self, tree: Callable[[], list[psutil.Process]]) -> None:
        self._tree = tree
        self._began = perf_counter()
        self._busy_s, self._client_s, self._server_s = _busy_s(), client_s(), _seconds_of(tree())

    def shares(self) -> dict[str, float]:
        """Return cores used by the server, the client and others, stolen time among theirs."""
        wall = perf_counter() - self._began
        now = _seconds_of(self._tree())
        server = sum(spent - self._server_s.get(pid, 0.0) for pid, spent in now.items())
        client = client_s() - self._client_s
        others = _busy_s() - self._busy_s - server - client
        named = {"server": server, "client": client, "others": max(0.0, others)}
        return {name: round(seconds / wall, 3) for name, seconds in named.items()}


def _busy_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice, too
    return sum(times) - idle - guests


def client_s() -> float:
    """Return the CPU seconds of this process, and of programs it ran as clients that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + ended.ru_utime + ended.ru_stime


def _seconds_of(tree: list[psutil.Process]) -> dict[int, float]:
    spent = {}
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent[process.pid] = times.user + times.system
    return spent


async def quietly(
    part: Callable[[], Awaitable[dict[str, Any]]],
    tree: Callable[[], list[psutil.Process]],
    max_others: float,
    repeats: int,
) -> dict[str, Any]:
    """Measure a part again while others use over `max_others` cores; return the quietest, marked if noisy."""
    tries: list[dict[str, Any]] = []
    while len(tries) <= repeats:
        counting = CpuShares(tree)
        measured = await part()
        tries.append({**measured, "cores": counting.shares()})
        if tries[-1]["cores"]["others"] <= max_others:
            break
    quietest = min(tries, key=lambda one: one["cores"]["others"])
    return {**quietest, "tries": len(tries), "noisy": quietest["cores"]["others"] > max_others}
