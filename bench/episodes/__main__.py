"""Time what an episode costs against a real server; write bench/results/episodes.json.

python -m bench.episodes --rounds 15 --frames 10000
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.episodes.asking import BUDGET, MERGE, robot
from bench.episodes.measure import FRAMES, STEP_M, first_tokens, long_walk, pushes
from bench.load.serving import ROOT, ours, serving
from evals.machine import write_result

RESULT = ROOT / "bench" / "results" / "episodes.json"
SERVER = {"TOSA_VQA_MAX_IMAGES": str(FRAMES), "TOSA_VQA_REQUEST_TIMEOUT_S": "300"}
WALKS = (("cover", 0.0), ("seen", STEP_M))


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--rounds", type=int, default=15)
    args.add_argument("--frames", type=int, default=10_000, help="of each long walk")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    with serving(ours("--depth-model", "none"), env=SERVER) as served, robot(served.url) as asking:
        environment = served.environment()
        pushed = pushes(asking, 2 * given.rounds)
        print(pushed, flush=True)
        first = first_tokens(asking, given.rounds)
        print(first, flush=True)
        work = {"model": "room-tiny", "frame": "640 x 480", "budget": BUDGET, **MERGE}
        measured = {"work": work, "first_token": first, "push": pushed}
        walks = list[dict[str, Any]]()
        for method, step_m in WALKS:
            walks.append(long_walk(asking, served.process, given.frames, method, step_m))
            write_result(given.out, {"environment": environment, **measured, "long_walks": walks})


if __name__ == "__main__":
    main()
