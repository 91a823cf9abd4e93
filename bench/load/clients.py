"""The same request from this generator and from independent clients, one after another.

A stall that affects only real clients shows as a difference between the arms. Every arm uses one connection
and keeps it open. `hey` is a program: apt-get install hey.
"""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from bench.load import summary
from bench.load.connection import Response
from bench.load.cpu import client_s
from bench.load.generator import Target, closed_loop
from bench.load.requests import Request, Sample

REQUESTS = 50
WARM_UP = 3
Arm = Callable[[Target, Request, int], Awaitable[dict[str, Any]]]


class ArmSkipped(Exception):
    """A client that cannot run here; the text says why and what to do."""


async def compare(target: Target, request: Request, number: int = REQUESTS) -> dict[str, Any]:
    """Send the request `number` times with each client; return a summary by client, or why it was skipped."""
    await closed_loop(target, [request] * WARM_UP, 1)
    target.close()  # every client opens its own connection
    measured: dict[str, Any] = {}
    for name, arm in ARMS.items():
        try:
            measured[name] = await _with_cpu(arm, target, request, number)
        except ArmSkipped as reason:
            measured[name] = {"skipped": str(reason)}
    return measured


async def _with_cpu(arm: Arm, target: Target, request: Request, number: int) -> dict[str, Any]:
    before = client_s()
    measured = await arm(target, request, number)
    return {**measured, "client_cpu_ms": round(1000 * (client_s() - before) / number, 3)}


async def _generator(target: Target, request: Request, number: int) -> dict[str, Any]:
    opened = target.opened
    samples = await closed_loop(target, [request] * number, 1)
    return _summary(samples) | {"connections": target.opened - opened}


async def _httpx(target: Target, request: Request, number: int) -> dict[str, Any]:
    """Use httpx.AsyncClient as its documentation shows; `connections` counts those that it opened."""
    opened: list[str] = []

    async def trace(event: str, _: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            opened.append(event)

    samples, headers = list[Sample](), request.headers(target.key)
    async with httpx.AsyncClient(
        base_url=f"http://{target.name}", timeout=target.timeout_s, trust_env=False
    ) as client:
        for _ in range(number):
            built = client.build_request(
                request.method,
                request.path,
                content=request.body,
                headers=headers,
                extensions={"trace": trace},
            )
            samples.append(await _send_httpx(client, built, request.label))
    return _summary(samples) | {"connections": len(opened)}


async def _send_httpx(client: httpx.AsyncClient, built: httpx.Request, label: str) -> Sample:
    sent = perf_counter()
    try:
        found = await client.send(built)
    except httpx.HTTPError as error:
        return Sample(label, sent, sent, perf_counter(), lost=type(error).__name__)
    ended = perf_counter()
    response = Response(found.status_code, dict(found.headers), found.content, (), ended, ended)
    return Sample(label, sent, sent, ended, found.status_code, response=response)


async def _hey(target: Target, request: Request, number: int) -> dict[str, Any]:
    program = shutil.which("hey")
    if program is None:
        raise ArmSkipped("hey is not on PATH: apt-get install hey")
    if target.key is not None:
        raise ArmSkipped(
            "hey takes an API key only as an argument, which every user of the machine could read"
        )
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        content = ["-D", body.name, "-T", request.headers()["Content-Type"]] if request.body else []
        command = [program, "-n", str(number), "-c", "1", "-t", f"{target.timeout_s:.0f}", "-o", "csv"]
        url = f"http://{target.name}{request.path}"
        process = await asyncio.create_subprocess_exec(
            *command, "-m", request.method, *content, url, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    rows = list(csv.DictReader(io.StringIO(printed.decode())))
    opened = sum(float(row["DNS+dialup"]) > 0 for row in rows)
    return _summary(samples_of(rows, number, request.label)) | {"connections": opened}


def samples_of(rows: Sequence[Mapping[str, str]], number: int, label: str) -> list[Sample]:
    """Return samples of the rows that hey printed; requests without a row got no response and are lost."""
    samples = [_sample(row, label) for row in rows]
    return samples + [Sample(label, 0.0, 0.0, 0.0, lost="no response")] * (number - len(rows))


def _sample(row: Mapping[str, str], label: str) -> Sample:
    start_s = float(row["offset"])
    return Sample(label, start_s, start_s, start_s + float(row["response-time"]), int(row["status-code"]))


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Summarise; `beyond_total_ms` is what a client waits beside `timings_ms.total`, if bodies were kept."""
    beyond = [one.latency_ms - one.total_ms for one in samples if one.total_ms is not None]
    return {
        **summary.summarise(samples),
        "beyond_total_ms": round(float(np.median(beyond)), 3) if beyond else None,
    }


ARMS: dict[str, Arm] = {"generator": _generator, "httpx": _httpx, "hey": _hey}
