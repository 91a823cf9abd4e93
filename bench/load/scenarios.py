"""The scenarios: each loads a target in its own way and returns its measurements, ready for JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice, pairwise
from random import Random
from time import perf_counter
from typing import Any

from psutil import Process

from bench.load import clients, summary
from bench.load.connection import NoResponse
from bench.load.corpus import MODES, ask, distinct
from bench.load.generator import (
    Target,
    closed_loop,
    endless,
    open_loop,
    poisson,
    send,
    send_and_disconnect,
    steady,
)
from bench.load.requests import Request, Sample
from bench.load.watch import scrape, watching

OVERLOAD = 24
CLIENTS = 16
SLO_FACTOR = 5.0


@dataclass
class Scenario:
    """The parameters of a scenario: the server, durations, and earlier measurements of the server."""

    target: Target
    seconds: float = 10.0
    frames: int = 48
    known_fields: frozenset[str] = frozenset()
    capacity: float = 0.0  # answers per second, of `capacity`
    base_ms: float = 0.0  # median latency of one client
    p99_at_capacity_ms: float = 0.0
    tree: Callable[[], list[Process]] = list  # the server's processes, if started here
    log: Callable[[str], None] = field(default=lambda _: None)

    def uncached(self) -> dict[str, object]:
        """Return the field that keeps the server from caching frames, if it has one."""
        return {"cache": "false"} if "cache" in self.known_fields else {}

    def requests(self, *modes: str) -> list[Request]:
        """Return a question about each frame, the modes alternating, none answered from a cache."""
        return distinct(modes, self.frames, self.uncached())

    @property
    def slo_ms(self) -> float:
        return SLO_FACTOR * self.base_ms


async def known_fields(target: Target) -> frozenset[str]:
    """Return the optional fields of a question in the server's OpenAPI schema."""
    try:
        response = await target.exchange(Request("/openapi.json"))
    except (NoResponse, TimeoutError):
        return frozenset()
    return frozenset(name for name in ("cache", "stream") if f'"{name}"'.encode() in response.body)


async def capacity(scenario: Scenario) -> dict[str, Any]:
    """One client, then sixteen: the base latency, and how many answers per second the server can give."""
    requests = scenario.requests("tosa 0.25")
    alone = await closed_loop(scenario.target, list(islice(endless(requests), 12)), 1)
    full = await closed_loop(scenario.target, list(islice(endless(requests), 4 * CLIENTS)), CLIENTS)
    alone_seen, full_seen = summary.summarise(alone[2:]), summary.summarise(full)
    if not alone_seen["answered"] or not full_seen["answered"]:
        raise SystemExit(f"the server answers nothing: {alone_seen['codes'] or alone_seen['lost_how']}")
    scenario.base_ms = alone_seen["latency_ms"]["p50"]
    scenario.capacity = full_seen["throughput"]
    scenario.p99_at_capacity_ms = full_seen["latency_ms"]["p99"]
    return {"alone": alone_seen, "full": full_seen, "clients": CLIENTS, "stages_ms": summary.stages(alone)}


async def real_clients(scenario: Scenario) -> dict[str, Any]:
    """The same question from this generator, httpx and hey, one connection each, kept open."""
    return await clients.compare(scenario.target, scenario.requests("cubist 0.25")[0])


async def one(scenario: Scenario) -> dict[str, Any]:
    """One mode at half and at 80 % of the capacity, with Poisson arrivals."""
    requests, steps = scenario.requests("tosa 0.25"), {}
    for share in (0.5, 0.8):
        moments = poisson(share * scenario.capacity, scenario.seconds)
        samples = await open_loop(scenario.target, endless(requests), moments)
        steps[f"{share:g}"] = summary.summarise(samples, scenario.slo_ms)
    return {"steps": steps}


async def mixed(scenario: Scenario) -> dict[str, Any]:
    """All modes and ratios alternating at 60 % of the capacity."""
    requests = scenario.requests(*MODES)
    moments = poisson(0.6 * scenario.capacity, 1.5 * scenario.seconds)
    async with watching(scenario.target, probe=None) as watched:
        samples = await open_loop(scenario.target, endless(requests), moments)
    return {
        "all": summary.summarise(samples, scenario.slo_ms),
        "modes": summary.by_label(samples, scenario.slo_ms),
        "gauges": watched.gauges,
    }


async def cache(scenario: Scenario) -> dict[str, Any]:
    """Ten questions about each frame, one after another; the first is encoded, the others may be cached."""
    samples: list[Sample] = []
    for frame in range(min(6, scenario.frames)):
        label = "first"
        for number in range(10):
            request = ask(500 + frame, "tosa 0.25", question=number, label=label)
            samples.append(await send(scenario.target, request, perf_counter()))
            label = "later"
    hits = sum(one.answer().get("cached") is True for one in samples)
    return {"labels": summary.by_label(samples), "cached": hits, "asked": len(samples)}


async def episodes(
    scenario: Scenario, robots: int = 4, frames: int = 4, questions: int = 3
) -> dict[str, Any]:
    """Robots that take a frame with depth, ask several questions about it, and take the next."""

    async def robot(number: int) -> list[Sample]:
        samples = []
        for frame in range(frames):
            for question in range(questions):
                index = 600 + number * frames + frame
                request = ask(index, "tosa 0.25", question=question, label=f"q{question}")
                samples.append(await send(scenario.target, request, perf_counter()))
        return samples

    samples = [one for part in await asyncio.gather(*map(robot, range(robots))) for one in part]
    return {
        "robots": robots,
        "all": summary.summarise(samples, scenario.slo_ms),
        "questions": summary.by_label(samples),
    }


async def stream(scenario: Scenario) -> dict[str, Any]:
    """Streamed answers, four clients: time to the first event, and between events."""
    if "stream" not in scenario.known_fields:
        return {"skipped": "the server has no field 'stream'"}
    more = {**scenario.uncached(), "stream": "true"}
    requests = distinct(("tosa 0.25",), scenario.frames, more)
    samples = await closed_loop(scenario.target, requests, 4)
    moments = [(one, one.event_moments()) for one in samples if one.is_answer]
    gaps = [b - a for _, found in moments for a, b in pairwise(found)]
    return {
        "all": summary.summarise(samples),
        "first_event_ms": summary.percentiles(1000 * (m[0] - one.due_s) for one, m in moments if m),
        "between_events_ms": summary.percentiles(1000 * gap for gap in gaps),
        "events": sum(len(found) for _, found in moments),
    }


async def overload(scenario: Scenario) -> dict[str, Any]:
    """Arrivals at 24 times the capacity, with a probe every 20 ms and the gauges."""
    requests = scenario.requests("tosa 0.25")
    moments = steady(OVERLOAD * scenario.capacity, min(scenario.seconds, 5.0))
    async with watching(scenario.target) as watched:
        samples = await open_loop(scenario.target, endless(requests), moments)
    return {
        "factor": OVERLOAD,
        "all": summary.summarise(samples, scenario.slo_ms),
        "probe": summary.summarise(watched.probes),
        "p99_at_capacity_ms": scenario.p99_at_capacity_ms,
        "answers_over_time": summary.over_time(samples, lambda one: one.is_answer),
        "refusals_over_time": summary.over_time(samples, lambda one: one.is_refusal),
        "gauges": watched.gauges,
    }


async def disconnects(scenario: Scenario) -> dict[str, Any]:
    """Clients that wait at 40 % of the capacity, and as many that disconnect at a random time."""
    waiting = scenario.requests("tosa 0.25")
    abandoned = distinct(("tosa 0.25",), 16, scenario.uncached(), start=700)
    rate, chance = 0.4 * scenario.capacity, Random(1)
    moments = poisson(rate, scenario.seconds, seed=2)

    async def abandon(request: Request, moment: float) -> Sample:
        await asyncio.sleep(moment)
        after_s = chance.uniform(0.001, 2 * scenario.base_ms / 1000)
        return await send_and_disconnect(scenario.target, request, perf_counter(), after_s)

    alone = await open_loop(scenario.target, endless(waiting), moments)
    sent = [abandon(request, at) for request, at in zip(endless(abandoned), moments, strict=False)]
    disconnecting = asyncio.gather(*sent)
    beside = await open_loop(scenario.target, endless(waiting), moments)
    gone = await disconnecting
    await asyncio.sleep(0.5)
    return {
        "alone": summary.summarise(alone, scenario.slo_ms),
        "beside_disconnecting": summary.summarise(beside, scenario.slo_ms),
        "disconnecting": summary.summarise(gone),
        "gauges_after": await scrape(scenario.target),
    }


SCENARIOS: dict[str, Callable[[Scenario], Coroutine[Any, Any, dict[str, Any]]]] = {
    "clients": real_clients,
    "one": one,
    "mixed": mixed,
    "cache": cache,
    "episodes": episodes,
    "stream": stream,
    "overload": overload,
    "disconnects": disconnects,
}
