"""Compare language engines on the same cores; write bench/results/language.json.

python -m bench.language --rounds 3

Needs vLLM in an environment of its own: `make language` makes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.language.arms import ANSWER_TOKENS, ARMS, LONG_ARMS, NONE, SINGLE, TOSA, Arm, Server
from bench.language.measure import Part, repeated, second_question, throughput
from bench.language.servers import Embedded, embedded, long_answers, memory_mib
from bench.load.corpus import view
from bench.load.serving import Serving
from evals.machine import write_result

RESULT = Path(__file__).parents[1] / "results" / "language.json"
REQUESTS = {16: 96, 64: 128}
LONG_TOKENS = (8, 16, 24, 32, 48, 64)
LONG_REQUESTS = 32
BLOCK = 32
PARTS = THROUGHPUT, REPEATED, SECOND, LONG = (
    "throughput",
    "repeated frames",
    "second question",
    "long answers",
)
SHOWN = ("part", "arm", "clients", "round", "ms_an_answer", "tokens_per_s", "right")
Run = dict[str, Any]


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others stay as they are")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    kept = json.loads(given.out.read_text()) if set(given.parts) < set(PARTS) else {"runs": []}
    runs: list[Run] = [run for run in kept["runs"] if run["part"] not in given.parts]
    measured: dict[str, Any] = {"block_size": BLOCK}
    frames = Frames()
    if set(given.parts) - {LONG}:
        with embedded(BLOCK) as servers:
            measured |= _embedded(servers, frames, given.parts, given.rounds, runs)
    if LONG in given.parts:
        with long_answers() as ours:
            measured["environment"] = ours["torch"].environment()
            runs += _rounds(LONG, LONG_ARMS, ours, frames, given.rounds, LONG_REQUESTS, 16, LONG_TOKENS)
    write_result(given.out, {**kept, **measured, "runs": runs})


def _embedded(
    servers: Embedded, frames: Frames, parts: Sequence[str], rounds: int, runs: list[Run]
) -> dict[str, Any]:
    """Measure the parts with room-tiny; add to the runs, and return the rest of the result."""
    if THROUGHPUT in parts:
        for clients, number in REQUESTS.items():
            runs += _rounds(THROUGHPUT, ARMS, servers.ours, frames, rounds, number, clients)
    if REPEATED in parts:
        runs += [asyncio.run(_repeated(arm, servers.ours, frames)) for arm in ARMS]
    second = {"second_question": asyncio.run(_second(servers, frames))} if SECOND in parts else {}
    memory = {name: memory_mib(server) for name, server in servers.ours.items()}
    memory["language server"] = memory_mib(servers.language)
    return {"environment": servers.ours["torch"].environment(), "memory_mib": memory, **second}


class Frames:
    """Hand out frames of RoomQA that no server has seen yet, drawn before anything is timed."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, number: int) -> range:
        """Return the indices of so many new frames."""
        taken = range(self._next, self._next + number)
        self._next += number
        for frame in taken:
            view(frame)
        return taken


def _rounds(
    part: str,
    arms: Sequence[Arm],
    servers: Mapping[Server, Serving],
    frames: Frames,
    rounds: int,
    number: int,
    clients: int,
    answer_tokens: Sequence[int] = (ANSWER_TOKENS,),
) -> list[Run]:
    """Measure every arm once in each round, after one round with few frames that does not count."""
    runs: list[Run] = []
    for round_ in range(-1, rounds):
        for arm in arms:
            taken = frames.take(number if round_ >= 0 else 8)
            measured = asyncio.run(throughput(arm, servers[arm.server], taken, clients, answer_tokens))
            run = {"part": part, "arm": arm.name, "clients": clients, "round": round_, **measured}
            print(
                *(run[name] for name in ("part", "arm", "clients", "round", "ms_an_answer", "right")),
                flush=True,
            )
            runs += [run] if round_ >= 0 else []
    return runs


async def _repeated(arm: Arm, servers: Mapping[Server, Serving], frames: Frames) -> Run:
    measured = await repeated(arm, servers[arm.server], frames.take(4), 6)
    print("repeated", arm.name, measured["ms_an_answer"], flush=True)
    return {"part": REPEATED, "arm": arm.name, "clients": 1, "round": 0, **measured}


async def _second(servers: Embedded, frames: Frames) -> dict[str, Part]:
    arms = [Arm("vllm", SINGLE | method) for method in (NONE, TOSA)]
    return {
        arm.name: await second_question(arm, servers.ours["vllm"], servers.language, frames.take(20))
        for arm in arms
    }


if __name__ == "__main__":
    main()
