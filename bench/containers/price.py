"""What a container costs: one server uncontained, hardened, and behind the proxy of the compose file.

All three run the files of one image. Interleaved rounds load one of them while the others idle.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import Any

from bench.containers.engine import WORK, Engine, program
from bench.containers.hardened import IMAGE
from bench.containers.stack import PROJECT, Stack
from bench.load import summary
from bench.load.generator import Target, closed_loop, endless
from bench.load.scenarios import CLIENTS, Scenario, known_fields
from bench.load.serving import stop

PORT = 18_431
SEEN = ("/proc", "/sys")
"""Where torch reads what the processor can do; containers see them too."""
ARMS = ("uncontained", "hardened", "compose")
ALONE, FULL = 24, 4 * CLIENTS
"""Requests of one client, and of sixteen."""
LOAD = "tosa-vqa:load"


@contextmanager
def uncontained(found: Engine, threads: int) -> Iterator[str]:
    """Run the service from the image's files as an ordinary process: another root folder is all it has."""
    container = found("create", IMAGE)
    root = found("mount", container)
    for each in SEEN:
        subprocess.run(["mount", "--bind", each, f"{root}{each}"], check=True)
    lines = json.loads(found("image", "inspect", "--format", "{{json .Config.Env}}", IMAGE))
    environment = dict(line.split("=", 1) for line in lines) | {"TOSA_VQA_NUM_THREADS": str(threads)}
    serve = ["/opt/tosa-vqa/bin/tosa-vqa", "serve", "--host", "127.0.0.1", "--port", str(PORT)]
    command = [program("chroot") or "chroot", root, *serve]
    with (WORK / "uncontained.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        stop(process)
        for each in SEEN:
            subprocess.run(["umount", "--lazy", f"{root}{each}"], check=True)
        found("umount", container)
        found("rm", "--force", container)


async def measured(url: str, frames: int) -> dict[str, float]:
    """Measure the latency of one client and the throughput of sixteen, every frame new."""
    target = Target.of(url)
    scenario = Scenario(target, frames=frames, known_fields=await known_fields(target))
    requests = scenario.requests("tosa 0.25")
    await closed_loop(target, requests[:2], 1)
    alone = summary.summarise(await closed_loop(target, list(islice(endless(requests), ALONE)), 1))
    full = summary.summarise(await closed_loop(target, list(islice(endless(requests), FULL)), CLIENTS))
    target.close()
    return {
        "alone_ms": alone["latency_ms"]["p50"],
        "answers_per_s": full["throughput"],
        "lost": alone["lost"] + full["lost"],
    }


def rounds(urls: dict[str, str], number: int, frames: int) -> Iterator[dict[str, Any]]:
    """Yield what each arm gave in each round, another arm first each time."""
    for index in range(number):
        first = index % len(ARMS)
        for arm in ARMS[first:] + ARMS[:first]:
            yield {"round": index, "arm": arm, **asyncio.run(measured(urls[arm], frames))}


def price(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return medians by arm, and how many percent each loses against uncontained, round by round."""
    by_arm = {arm: sorted((one for one in runs if one["arm"] == arm), key=_round) for arm in ARMS}
    bare, told = by_arm[ARMS[0]], {}
    for arm, own in by_arm.items():
        pairs = list(zip(own, bare, strict=True))
        slower = [100 * (one["alone_ms"] / other["alone_ms"] - 1) for one, other in pairs]
        fewer = [100 * (1 - one["answers_per_s"] / other["answers_per_s"]) for one, other in pairs]
        told[arm] = {
            "alone_ms": median(one["alone_ms"] for one in own),
            "answers_per_s": median(one["answers_per_s"] for one in own),
            **{"latency_percent": median(slower), "latency_least": min(slower), "latency_most": max(slower)},
            **{"throughput_percent": median(fewer), "throughput_least": min(fewer)},
            **{"throughput_most": max(fewer), "lost": sum(one["lost"] for one in own)},
        }
    return told


def _round(one: dict[str, Any]) -> int:
    return one["round"]


def load_of_compose(found: Engine, composed: Stack, words: Sequence[str]) -> dict[str, Any]:
    """Run the load test of the compose file as users do, and return its report."""
    composed(
        "--profile",
        "load",
        "run",
        "--rm",
        "load",
        *_command("http://proxy:8080", "report", words),
        timeout_s=1800,
    )
    return _read(found, "report")


def load_of_uncontained(found: Engine, url: str, words: Sequence[str]) -> dict[str, Any]:
    """Run the same load generator against a process of this machine, and return its report."""
    options = ("--rm", "--network", "host", "--volume", f"{PROJECT}_results:/results")
    found("run", *options, LOAD, *_command(url, "uncontained", words), timeout_s=1800)
    return _read(found, "uncontained")


def _command(url: str, name: str, words: Sequence[str]) -> tuple[str, ...]:
    out = ("--out", f"/results/{name}.json", "--images", "/results")
    return ("python", "-m", "bench.load", "--url", url, *out, *words)


def _read(found: Engine, name: str) -> dict[str, Any]:
    volume = f"{PROJECT}_results:/results:ro"
    return json.loads(found("run", "--rm", "--volume", volume, LOAD, "cat", f"/results/{name}.json"))
