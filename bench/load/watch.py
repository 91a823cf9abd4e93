"""Observe a server under load: how fast a probe is answered, and the gauges of its /metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

from bench.load.connection import NoResponse
from bench.load.generator import Target, send
from bench.load.requests import Request, Sample

GAUGES = ("queue_depth", "in_flight", "running")
LINE = re.compile(rf"^\w*?({'|'.join(GAUGES)})(?:\{{[^}}]*\}})? ([-+.\deE]+)$", re.M)


@dataclass
class Watched:
    """Observations: probe samples, and [seconds, value] by gauge."""

    probes: list[Sample] = field(default_factory=list)
    gauges: dict[str, list[list[float]]] = field(default_factory=dict)


@asynccontextmanager
async def watching(
    target: Target, probe: str | None = "/livez", every_s: float = 0.02, metrics: str | None = "/metrics"
) -> AsyncIterator[Watched]:
    """Request `probe` every `every_s`, on a fixed schedule, and `metrics` five times a second."""
    watched, start = Watched(), perf_counter()
    loops = [] if probe is None else [_probe(target, probe, every_s, watched)]
    if metrics is not None:
        loops.append(_scrape(target, metrics, 0.2, start, watched))
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield watched
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def scrape(target: Target, path: str = "/metrics") -> dict[str, float]:
    """Return the current gauges; none if the server has no /metrics."""
    try:
        response = await target.exchange(Request(path))
    except (NoResponse, TimeoutError):
        return {}
    if response.status != 200:
        return {}
    return {name: float(value) for name, value in LINE.findall(response.body.decode("utf-8", "replace"))}


async def _probe(target: Target, path: str, every_s: float, watched: Watched) -> None:
    # Open loop: a probe that hangs does not delay the next ones.
    request, due, running = Request(path, label="probe"), perf_counter(), set[asyncio.Task[None]]()

    async def one(due_s: float) -> None:
        watched.probes.append(await send(target, request, due_s))

    try:
        while True:
            task = asyncio.create_task(one(due))
            running.add(task)
            task.add_done_callback(running.discard)
            due += every_s
            await asyncio.sleep(max(0.0, due - perf_counter()))
    finally:
        await asyncio.gather(*running)


async def _scrape(target: Target, path: str, every_s: float, start: float, watched: Watched) -> None:
    while gauges := await scrape(target, path):
        moment = round(perf_counter() - start, 3)
        for name, value in gauges.items():
            watched.gauges.setdefault(name, []).append([moment, value])
        await asyncio.sleep(every_s)
