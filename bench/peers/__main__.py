"""Measure all servers in interleaved rounds; write bench/results/peers.json after every arm.

Started again, it continues from what the file holds.

python -m bench.peers --rounds 3
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from bench.load.corpus import view
from bench.load.serving import ServerFailed
from bench.peers.arms import ARMS, DIRECT, OURS, Work
from bench.peers.bars import judge
from bench.peers.report import print_result
from bench.peers.rounds import measure_arm, measure_engine
from evals.environment import describe_environment
from evals.machine import describe_machine, write_result

RESULT = Path(__file__).parents[1] / "results" / "peers.json"
NAMES = (
    *[name for name in ARMS if name != OURS],
    DIRECT,
    OURS,
)  # the two that are subtracted run one after the other


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--arms", nargs="*", choices=NAMES, default=list(NAMES))
    args.add_argument("--torch-threads", type=int, default=Work.torch_threads)
    args.add_argument(
        "--quick", action="store_true", help="a quarter of the work, to see that every arm runs"
    )
    args.add_argument("--fresh", action="store_true", help="ignore what --out holds")
    args.add_argument("--report", action="store_true", help="only print what --out holds")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()

    console = Console(width=None if Console().is_terminal else 130)
    if given.report:
        print_result(json.loads(given.out.read_text()), console)
        return
    work = Work(torch_threads=given.torch_threads, **(QUICK if given.quick else {}))
    runs = [] if given.fresh else kept_runs(given.out, work)
    for index in range(work.frames):  # rendered before anything is timed
        view(index)
    for number in range(given.rounds):
        for name in given.arms:
            if not any((run["round"], run["arm"]) == (number, name) for run in runs):
                began = monotonic()
                runs.append({"round": number, "arm": name, **measured(name, work, console)})
                console.print(f"round {number + 1}: {name}, {monotonic() - began:.0f} s")
                publish(given.out, work, runs)
    print_result(json.loads(given.out.read_text()), console)


QUICK: dict[str, Any] = {
    "frames": 32,
    "requests": {"1": 8, "4": 8, "16": 32, "64": 64},
    "abandoned_times": 1,
    "overload_s": 1.0,
    "repeats": 0,
}


def measured(name: str, work: Work, console: Console) -> dict[str, Any]:
    """Measure one arm in one round; a server that does not start is recorded as such."""
    stamp = {"commit": describe_machine()["commit"]}
    try:
        run = measure_engine(work) if name == DIRECT else measure_arm(ARMS[name], work)
    except ServerFailed as error:
        console.print(f"{name} did not start: {error}")
        return {**stamp, "parts": {}, "failed": "did not start"}
    return {**stamp, **run}


def kept_runs(path: Path, work: Work) -> list[dict[str, Any]]:
    """Return the runs of an earlier start with the same work in the same environment."""
    if not path.exists():
        return []
    result = json.loads(path.read_text())
    is_same = result["work"] == work.as_json() and result.get("environment") == describe_environment()
    return result["runs"] if is_same else []


def publish(path: Path, work: Work, runs: list[dict[str, Any]]) -> None:
    """Write everything measured so far."""
    result = {
        "model": {"id": "room-tiny"},
        "work": work.as_json(),
        "titles": {DIRECT: "the engine, no server", **{name: arm.title for name, arm in ARMS.items()}},
        "runs": runs,
        "bars": judge(runs),
    }
    write_result(path, result)


if __name__ == "__main__":
    main()
