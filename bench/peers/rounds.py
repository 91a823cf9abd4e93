"""One server in one round; a part is repeated while other programs use the CPU."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any

from bench.load import summary
from bench.load.corpus import distinct, view
from bench.load.cpu import quietly
from bench.load.generator import Target, closed_loop, endless, open_loop, send, steady
from bench.load.requests import Request, Sample
from bench.load.serving import ROOT, Serving, serving
from bench.load.watch import watching
from bench.peers.arms import MODE, Arm, Work
from evals.environment import environment_of

DISCONNECT_AFTER_S = 0.1
WARM_UP = 20  # questions; about as many as for the engine without a server


def requests_of(work: Work) -> list[Request]:
    """Return a question about each frame, with our cache off; the other servers ignore that field."""
    requests = distinct((MODE,), work.frames, {"cache": "false"})
    return [replace(request, label=str(index)) for index, request in enumerate(requests)]


def measure_arm(arm: Arm, work: Work) -> dict[str, Any]:
    """Start the server, measure it and stop it; then again with its own limits if it has any.

    Return the parts, and the environment of the server. Raises ServerFailed.
    """
    with serving(arm.command(), arm.ready, {**work.env(), **arm.env}) as server:
        parts = asyncio.run(ArmRound(arm, work, server).without_limits())
        environment = server.environment()
    parts["start_s"] = round(server.start_s, 2)
    if arm.limited is not None:
        with serving(arm.command(), arm.ready, {**work.env(), **arm.limited}) as server:
            parts |= asyncio.run(ArmRound(arm, work, server).with_limits())
    return {"parts": parts, "environment": environment}


def measure_engine(work: Work) -> dict[str, Any]:
    """Measure the engine in a separate process, without a server."""
    command = [sys.executable, "-m", "bench.peers.direct", json.dumps(work.as_json())]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **work.env()}, stdout=subprocess.PIPE, text=True, check=True
    )
    parts = json.loads(done.stdout.splitlines()[-1])
    return {"parts": parts, "environment": environment_of(sys.executable, work.env())}


class ArmRound:
    """Measure one running server."""

    def __init__(self, arm: Arm, work: Work, server: Serving) -> None:
        self._arm, self._work, self._server = arm, work, server
        self._requests = requests_of(work)

    async def without_limits(self) -> dict[str, Any]:
        """Measure latency, throughput, probes and abandoned requests; the server refuses nothing."""
        with closing(Target.of(self._server.url)) as target:
            await closed_loop(target, self._requests[:WARM_UP], 1)
            parts = {
                f"c{clients}": await self._closed(target, int(clients)) for clients in self._work.requests
            }
            parts["probe"] = await self._quietly(lambda: self._probe(target))
            parts["abandoned"] = await self._quietly(lambda: self._abandon(target))
        return parts

    async def with_limits(self) -> dict[str, Any]:
        """Measure the capacity once more, then the server at a multiple of it."""
        with closing(Target.of(self._server.url)) as target:
            await closed_loop(target, self._requests[:WARM_UP], 1)
            full = await self._closed(target, 16)
            return {
                "limited c16": full,
                "overload": await self._quietly(lambda: self._overload(target, full)),
            }

    async def _closed(self, target: Target, clients: int) -> dict[str, Any]:
        requests = list(islice(endless(self._requests), self._work.requests[str(clients)]))

        async def part() -> dict[str, Any]:
            opened = target.opened
            measured = _summary(await closed_loop(target, requests, clients))
            return {**measured, "opened_connections": target.opened - opened}

        return await self._quietly(part)

    async def _probe(self, target: Target) -> dict[str, Any]:
        requests = list(islice(endless(self._requests), self._work.requests["16"]))
        async with watching(target, self._arm.probe, metrics=None) as watched:
            await closed_loop(target, requests, 16)
        return summary.summarise(watched.probes)

    async def _abandon(self, target: Target) -> dict[str, Any]:
        fresh = [await self._fresh_after_abandoned(target) for _ in range(self._work.abandoned_times)]
        return {
            "fresh_ms": round(statistics.median(one.latency_ms for one in fresh), 3),
            "all_fresh_ms": [round(one.latency_ms, 3) for one in fresh],
            "answered": sum(one.is_answer for one in fresh),
        }

    async def _fresh_after_abandoned(self, target: Target) -> Sample:
        opened = [await target.open() for _ in range(self._work.abandoned)]
        sending = [
            connection.send(target.head(request), request.body)
            for connection, request in zip(opened, self._requests, strict=False)
        ]
        await asyncio.sleep(DISCONNECT_AFTER_S)
        await asyncio.gather(*(task for task in sending if task is not None))
        for connection in opened:
            connection.close()
        return await send(target, self._requests[-1], perf_counter())

    async def _overload(self, target: Target, full: dict[str, Any]) -> dict[str, Any]:
        rate = self._work.overload_factor * full["throughput"]
        moments = steady(rate, self._work.overload_s)
        samples = await open_loop(target, endless(self._requests), moments)
        return {**_summary(samples), "rate": round(rate, 1)}

    async def _quietly(self, part: Any) -> dict[str, Any]:
        return await quietly(part, self._server.tree, self._work.max_others, self._work.repeats)


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    answered = [one for one in samples if one.is_answer]
    right = sum(one.answer()["answer"] == view(int(one.label)).answers[0] for one in answered)
    return {**summary.summarise(samples), "right": right}
