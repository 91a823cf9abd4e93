"""Time what real clients wait for beside the work; write bench/results/overhead.json.

python -m bench.overhead --before ../checkout-of-an-earlier-state
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from bench.load.serving import ROOT, serving
from bench.overhead import proxy
from bench.overhead.clients import CLIENTS
from bench.overhead.measure import Cell, measure
from evals.environment import package_version
from evals.machine import write_result

RESULT = ROOT / "bench" / "results" / "overhead.json"
LAUNCH = Path(__file__).parent / "launch.py"
LOOPS = ("uvloop", "asyncio")
SIZES = (20_000, 230_000, 2_000_000, 8_000_000)
SERVERS_PACKAGES = ("uvicorn", "uvloop", "h11", "fastapi", "starlette", "torch", "transformers")
PACKAGES = (*SERVERS_PACKAGES, *CLIENTS)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--requests", type=int, default=50)
    args.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS)
    args.add_argument("--before", type=Path, help="a checkout whose server is measured beside")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()

    runs: list[dict[str, Any]] = []
    for loop in given.loops:
        with servers(loop, given.before) as urls:
            for size, client, (server, via) in product(given.sizes, CLIENTS, urls):
                cell = Cell(server, loop, via, client, size)
                runs.append(measure(cell, urls[server, via], given.requests))
                print(*vars(cell).values(), runs[-1]["transport_ms"], runs[-1]["unseen_ms"], flush=True)
    versions = {**{name: package_version(name) for name in PACKAGES}, "haproxy": proxy.version()}
    write_result(given.out, {"requests": given.requests, "versions": versions, "runs": runs})


@contextmanager
def servers(loop: str, before: Path | None) -> Iterator[dict[tuple[str, str], str]]:
    """Start all servers; yield their addresses by server and by what is in between."""
    ours = ("service", "serve", "--port", "{port}", "--depth-model", "none")
    commands = {"now": command(loop, ROOT, *ours)}
    if before is not None:
        commands["before"] = command(loop, before.resolve(), *ours)
    commands["plain"] = command(loop, ROOT, "bench.overhead.plain", "{port}")
    with ExitStack() as stack:
        urls: dict[tuple[str, str], str] = {}
        for name, words in commands.items():
            urls[name, "direct"] = stack.enter_context(serving(words)).url
            urls[name, "haproxy"] = stack.enter_context(proxy.proxied(urls[name, "direct"]))
        yield urls


def command(loop: str, tree: Path, *words: str) -> Sequence[str]:
    """Return the command that runs a module of a checkout on this event loop."""
    return [sys.executable, str(LAUNCH), loop, str(tree), *words]


if __name__ == "__main__":
    main()
