"""What a container costs: one server uncontained, hardened, and behind the proxy of the compose file.

All three run the files of one image. Interleaved rounds load one of them while the others idle. Needs the
images of `make test-containers`, and podman as root, whose mounted image the uncontained server runs from.

python -m bench.container_load --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.load.corpus import view
from bench.load.generator import Target
from bench.load.scenarios import Scenario, capacity, known_fields
from evals.machine import write_result
from tests.containers import build
from tests.containers.asking import wait_until_answered
from tests.containers.engine import Engine, engine
from tests.containers.stack import PROJECT, URL, Stack, started
from tests.containers.test_hardened import running
from tests.needs import program

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "containers.json"
IMAGE = "tosa-vqa:cpu"
PORT = 18_431
SEEN = ("/proc", "/sys")
"""Where torch reads what the processor can do; containers see them too."""
ARMS = ("uncontained", "hardened", "compose")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--frames", type=int, default=48, help="different frames to ask about")
    args.add_argument("--threads", type=int, default=1, help="torch threads of every server")
    args.add_argument("--seconds", type=float, default=20.0, help="length of each part of the load test")
    args.add_argument("--price-only", action="store_true", help="leave out `compose run load`")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    found = engine()
    if found is None or not found.is_podman or not found.has(IMAGE):
        raise SystemExit("needs podman as root and the images: make test-containers")
    for index in range(given.frames):  # rendered before anything is timed
        view(index)
    measured = measure(found, given)
    measured |= {"engine": found.version(), "images": json.loads(build.REPORT.read_text())}
    write_result(given.out, measured)
    for arm, line in price(measured["rounds"]).items():
        print(arm, line)


def measure(found: Engine, given: argparse.Namespace) -> dict[str, Any]:
    """Start the three servers, load them in turn, then run the load test of the compose file."""
    threads = ("--env", f"TOSA_VQA_NUM_THREADS={given.threads}")
    with ExitStack() as stack:
        bare = stack.enter_context(uncontained(found, given.threads))
        _, hardened = stack.enter_context(running(found, "--memory", "4g", *threads))
        began = time.monotonic()
        composed = stack.enter_context(started(found, "service", threads=given.threads))
        wait_until_answered(URL)
        start_s = round(time.monotonic() - began, 1)
        urls = dict(zip(ARMS, (bare, hardened, URL), strict=True))
        for url in urls.values():
            wait_until_answered(url)
        rounds = []
        for number in range(given.rounds):
            for arm in ARMS[number % 3 :] + ARMS[: number % 3]:
                seen = asyncio.run(loaded(urls[arm], given.frames))
                rounds.append({"round": number, "arm": arm, **seen})
                print(rounds[-1], flush=True)
        result: dict[str, Any] = {"torch_threads": given.threads, "up_to_first_answer_s": start_s}
        result["rounds"] = rounds
        if not given.price_only:
            result["load"] = run_load(found, composed, given.seconds)
        return result


@contextmanager
def uncontained(found: Engine, threads: int) -> Iterator[str]:
    """Run the service from the image's files as an ordinary process: another root folder is all it has."""
    container = found("create", IMAGE)
    root = found("mount", container)
    for each in SEEN:
        subprocess.run(["mount", "--bind", each, f"{root}{each}"], check=True)
    environment = {
        "PATH": "/opt/tosa-vqa/bin:/usr/local/bin:/usr/bin:/bin",
        **{"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "2", "OMP_WAIT_POLICY": "PASSIVE"},
        "TOSA_VQA_NUM_THREADS": str(threads),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    serve = ["/opt/tosa-vqa/bin/tosa-vqa", "serve", "--host", "127.0.0.1", "--port", str(PORT)]
    process = subprocess.Popen(
        [program("chroot") or "chroot", root, *serve], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait(60)
        for each in SEEN:
            subprocess.run(["umount", "--lazy", f"{root}{each}"], check=True)
        found("rm", "--force", container)


async def loaded(url: str, frames: int) -> dict[str, float]:
    """Measure the latency of one client and the throughput of sixteen, every frame new."""
    target = Target.of(url)
    scenario = Scenario(target, frames=frames)
    scenario.known_fields = await known_fields(target)
    seen = await capacity(scenario)
    target.close()
    return {
        "alone_ms": seen["alone"]["latency_ms"]["p50"],
        "answers_per_s": seen["full"]["throughput"],
        "lost": seen["alone"]["lost"] + seen["full"]["lost"],
    }


def run_load(found: Engine, composed: Stack, seconds: float) -> dict[str, Any]:
    """Run the load generator's container against the proxy, and return its report."""
    words = ("python", "-m", "bench.load", "--url", "http://proxy:8080", "--seconds", f"{seconds:g}")
    composed(
        "run", "--rm", "load", *words, "--out", "/results/report.json", "--images", "/results", timeout_s=1800
    )
    read = ("run", "--rm", "--volume", f"{PROJECT}_results:/results:ro", "tosa-vqa:load")
    return json.loads(found(*read, "cat", "/results/report.json"))


def price(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return medians by arm, and how many percent slower each is than uncontained, round by round."""
    by_arm = {arm: [one for one in rounds if one["arm"] == arm] for arm in ARMS}
    bare, told = by_arm[ARMS[0]], {}
    for arm, runs in by_arm.items():
        pairs = list(zip(runs, bare, strict=True))
        told[arm] = {
            "alone_ms": median(one["alone_ms"] for one in runs),
            "answers_per_s": median(one["answers_per_s"] for one in runs),
            "latency_percent": median(100 * (one["alone_ms"] / b["alone_ms"] - 1) for one, b in pairs),
            "throughput_percent": median(
                100 * (1 - one["answers_per_s"] / b["answers_per_s"]) for one, b in pairs
            ),
            "lost": sum(one["lost"] for one in runs),
        }
    return told


if __name__ == "__main__":
    main()
