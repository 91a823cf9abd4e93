"""Load a running service, or one started for the test, and write the measurements.

python -m bench.load --url http://127.0.0.1:8000 --scenario mixed overload
python -m bench.load --serve
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.load import report
from bench.load.corpus import view
from bench.load.cpu import CpuShares
from bench.load.generator import Target
from bench.load.scenarios import SCENARIOS, Scenario, capacity, known_fields
from bench.load.serving import ServerFailed, ours, serving
from evals.environment import describe_environment
from evals.machine import write_result

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "bench" / "results" / "load" / "report.json"
IMAGES = ROOT / "docs" / "images"


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = args.add_mutually_exclusive_group(required=True)
    which.add_argument("--url", help="service to load, http://host:port")
    which.add_argument("--serve", action="store_true", help="start a service for the length of the test")
    args.add_argument("--scenario", nargs="*", choices=tuple(SCENARIOS), default=list(SCENARIOS))
    args.add_argument("--seconds", type=float, default=20.0, help="length of each open-loop part")
    args.add_argument("--frames", type=int, default=48, help="different frames to ask about")
    args.add_argument("--timeout-s", type=float, default=60.0, help="after which an answer counts as lost")
    args.add_argument("--api-key-file", type=Path, help="file that holds the API key to send")
    args.add_argument("--torch-threads", type=int, default=1, help="torch threads of the service of --serve")
    args.add_argument("--out", type=Path, default=RESULT)
    args.add_argument("--images", type=Path, default=IMAGES)
    given = args.parse_args()

    console = Console(width=None if Console().is_terminal else 130)
    for index in range(given.frames):  # rendered before anything is timed
        view(index)
    with contextlib.ExitStack() as stack:
        url, tree, environment = given.url, list, describe_environment()
        if given.serve:
            threads = {"TOSA_VQA_NUM_THREADS": str(given.torch_threads)}
            try:
                server = stack.enter_context(serving(ours(), env=threads))
                url, tree = server.url, server.tree
                environment = {**server.environment(), "torch_threads": given.torch_threads}
            except ServerFailed as error:
                raise SystemExit(f"the server failed: {error}") from None
        key = given.api_key_file and given.api_key_file.read_text().strip()
        target = Target.of(url, given.timeout_s, key)
        scenario = Scenario(target, given.seconds, given.frames, tree=tree, log=console.print)
        scenarios = asyncio.run(run(scenario, given.scenario))
    result: dict[str, Any] = {
        "url": "tosa-vqa serve" if given.serve else url,
        "seconds": given.seconds,
        "frames": given.frames,
        "scenarios": scenarios,
        "environment": environment,
        "environment_of": "the service" if given.serve else "the generator; the service runs elsewhere",
        **({"server_torch_threads": given.torch_threads} if given.serve else {}),
    }
    publish(result, given.out, given.images, console)


async def run(scenario: Scenario, names: list[str]) -> dict[str, Any]:
    """Measure the capacity, then run the scenarios one after another."""
    scenario.known_fields = await known_fields(scenario.target)
    measured: dict[str, Any] = {}
    for name, measure in (("capacity", capacity), *((name, SCENARIOS[name]) for name in names)):
        scenario.log(f"{name}: {(measure.__doc__ or '').strip()}")
        opened, counting = scenario.target.opened, CpuShares(scenario.tree)
        measured[name] = {**await measure(scenario), "cores": counting.shares()}
        measured[name]["opened_connections"] = scenario.target.opened - opened
    scenario.target.close()
    return measured


def publish(result: dict[str, Any], out: Path, images: Path, console: Console) -> None:
    """Print the table; write the JSON, the plots if matplotlib is installed, and the report."""
    write_result(out, result)
    result = json.loads(out.read_text())
    report.print_table(result, console)
    try:
        from bench.load.plots import plot

        drawn = plot(result, images)
    except ModuleNotFoundError:
        console.print("no plots: they need matplotlib, the extra tosa-vqa\\[plots]")
        drawn = []
    report.write_markdown(result, out.with_suffix(".md"), drawn)
    console.print(f"wrote {out} and {out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
