"""Measure containers: what one costs, the load test of the compose file, and replicas behind the proxy.

Needs the images of `make test-containers`, and podman as root, whose mounted image the uncontained server
runs from. Each part keeps what the others have measured.

python -m bench.containers --parts price load --rounds 8
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.containers import build, price, scale
from bench.containers.asking import wait_until_answered
from bench.containers.engine import ROOT, Engine, engine
from bench.containers.hardened import IMAGE, running
from bench.containers.stack import URL, Stack, started
from bench.load.corpus import view
from evals.environment import describe_environment
from evals.machine import write_result

RESULT = ROOT / "bench" / "results" / "containers.json"
LOADED = ("mixed", "overload", "disconnects")
"""Scenarios of the load test, after the capacity."""
SIZES = ((1, 1), (1, 2), (scale.REPLICAS, 2), (scale.REPLICAS, 1))
"""Replicas and torch threads of each; all else runs on the last."""
IN_CONTAINER = """
import json
from importlib.metadata import version
import platform, urllib.request
text = urllib.request.urlopen("http://127.0.0.1:8000/metrics").read().decode()
lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
print(json.dumps({
    "python": platform.python_version(),
    **{name: version(name) for name in ("torch", "transformers", "uvicorn", "uvloop")},
    **{name: float(lines[f"tosa_vqa_{name}"]) for name in ("in_flight", "queue_depth")},
}))
"""


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--parts", nargs="*", choices=[*PARTS], default=[*PARTS])
    args.add_argument("--rounds", type=int, default=8)
    args.add_argument("--frames", type=int, default=48, help="different frames to ask about")
    args.add_argument("--threads", type=int, default=1, help="torch threads of the servers of the price")
    args.add_argument("--seconds", type=float, default=10.0, help="length of each part of the load test")
    args.add_argument("--rolling", type=int, default=scale.ROLLING, help="requests of the rolling restart")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    found = engine()
    if found is None or not found.is_podman or not found.has(IMAGE):
        raise SystemExit("needs podman as root and the images: make test-containers")
    for index in range(given.frames):  # rendered before anything is timed
        view(index)
    for part in given.parts:
        whole = json.loads(given.out.read_text()) if given.out.exists() else {}
        measured = PARTS[part](found, given) | {"measured": time.strftime("%Y-%m-%d", time.gmtime())}
        images = {"engine": found.version(), "images": build.built_before()}
        write_result(given.out, whole | {part: measured, "environment": describe_environment()} | images)


def of_price(found: Engine, given: argparse.Namespace) -> dict[str, Any]:
    """Start the three servers and load them in turn."""
    threads = ("--env", f"TOSA_VQA_NUM_THREADS={given.threads}")
    with ExitStack() as stack:
        bare = stack.enter_context(price.uncontained(found, given.threads))
        _, hardened = stack.enter_context(running(found, "--memory", "4g", *threads))
        began = time.monotonic()
        composed = stack.enter_context(started(found, "service", threads=given.threads, is_timed=True))
        wait_until_answered(URL)
        start_s = round(time.monotonic() - began, 1)
        urls: dict[str, str] = dict(zip(price.ARMS, (bare, hardened, URL), strict=True))
        for url in urls.values():
            wait_until_answered(url)
        runs = []
        for run in price.rounds(urls, given.rounds, given.frames):
            print(run, flush=True)
            runs.append(run)
        return {
            **{"torch_threads": given.threads, "up_to_first_answer_s": start_s, "rounds": runs},
            **{"arms": price.price(runs), "container": inside(composed)},
        }


def of_load(found: Engine, given: argparse.Namespace) -> dict[str, Any]:
    """Run the load test of the compose file, and the same one on the uncontained server."""
    words = ("--seconds", f"{given.seconds:g}", "--scenario", *LOADED)
    with ExitStack() as stack:
        bare = stack.enter_context(price.uncontained(found, given.threads))
        composed = stack.enter_context(started(found, "service", threads=given.threads, is_timed=True))
        for url in (bare, URL):
            wait_until_answered(url)
        return {
            "torch_threads": given.threads,
            "uncontained": price.load_of_uncontained(found, bare, words),
            "compose": price.load_of_compose(found, composed, words),
            "container": inside(composed),
        }


def of_scale(found: Engine, given: argparse.Namespace) -> dict[str, Any]:
    """Measure the throughput of several sizes, and everything else on the last of them."""
    measured: dict[str, Any] = {"sizes": []}
    for replicas, threads in SIZES:
        with started(found, "service", replicas=replicas, threads=threads, is_timed=True) as stack:
            wait_until_answered(URL)
            stack.wait_for_replicas(replicas)
            seen = {"replicas": replicas, "threads": threads, **scale.throughput(stack)}
            print(seen, flush=True)
            measured["sizes"].append(seen)
            if (replicas, threads) == SIZES[-1]:
                measured |= of_three(stack, given.rolling) | {"container": inside(stack)}
    return measured


def of_three(stack: Stack, rolling: int) -> dict[str, Any]:
    """Return what three replicas do when frames have names, one dies, one leaves, all are restarted."""
    names = [
        {"named": has_names, **scale.remembered(stack, 1000 + 100 * index, has_names)}
        for index, has_names in enumerate((False, True, True, False))
    ]
    found: dict[str, Any] = {"frames": names}
    for name, measure in (("killed", scale.killed), ("drained", scale.drained)):
        found[name] = measure(stack)
        print(name, found[name], flush=True)
    rolled = scale.rolled(stack, rolling)
    found["rolled"] = {name: value for name, value in rolled.items() if name != "printed"}
    print("rolled", found["rolled"], flush=True)
    return found


def inside(stack: Stack) -> dict[str, Any]:
    """Return the versions in a container of the service, and its gauges now."""
    return json.loads(stack.engine("exec", stack.containers("service")[0], "python", "-c", IN_CONTAINER))


PARTS = {"price": of_price, "load": of_load, "scale": of_scale}


if __name__ == "__main__":
    main()
