"""The engine in this process, no server: one by one, and in full batches with decoding ahead in a pool.

Both do all the work from file bytes to answers. Prints the measurements as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import perf_counter
from typing import Any

from bench.load.corpus import MODES, view
from bench.load.cpu import quietly
from bench.load.summary import percentiles
from bench.peers.arms import MODE, Work
from bench.peers.model import MAX_BATCH, Model

Question = tuple[bytes, bytes, str]
PLAN = MODES[MODE]["method"], MODES[MODE]["keep_ratio"]


def main() -> None:
    work = Work(**json.loads(sys.argv[1]))
    one, many = work.requests["1"], work.requests["16"]
    model = Model()
    questions = [(view(i).image, view(i).depth, view(i).questions[0]) for i in range(max(one, many))]
    one_by_one(model, questions[:3])
    in_batches(model, questions[: 2 * MAX_BATCH])
    parts = {
        "c1": lambda: one_by_one(model, questions[:one]),
        "full": lambda: in_batches(model, questions[:many]),
    }
    with ThreadPoolExecutor(1) as model_thread:
        measured = {name: asyncio.run(_quiet(part, work, model_thread)) for name, part in parts.items()}
    print(json.dumps(measured))


async def _quiet(
    part: Callable[[], dict[str, Any]], work: Work, model_thread: ThreadPoolExecutor
) -> dict[str, Any]:
    # In a thread of its own, as in the service: the allocator treats the main thread differently.
    async def run() -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(model_thread, part)

    return await quietly(run, lambda: [], work.max_others, work.repeats)


def one_by_one(model: Model, questions: list[Question]) -> dict[str, Any]:
    """Answer one question after another in this thread."""
    times, began = [], perf_counter()
    for question in questions:
        start = perf_counter()
        model.answer(model.prepare(*question, *PLAN))
        times.append((perf_counter() - start) * 1000)
    return _summary(len(questions), perf_counter() - began) | {"latency_ms": percentiles(times)}


def in_batches(model: Model, questions: list[Question]) -> dict[str, Any]:
    """Answer full batches in this thread while a pool prepares the next ones."""
    in_model, began = 0.0, perf_counter()
    with ThreadPoolExecutor(model.settings.decode_threads) as pool:
        ready = iter([pool.submit(model.prepare, *question, *PLAN) for question in questions])
        while batch := list(islice(ready, MAX_BATCH)):
            prepared = [one.result() for one in batch]
            start = perf_counter()
            model.answers(prepared)
            in_model += perf_counter() - start
    seconds = perf_counter() - began
    return _summary(len(questions), seconds) | {"model_share": round(in_model / seconds, 3)}


def _summary(number: int, seconds: float) -> dict[str, Any]:
    return {
        "answered": number,
        "seconds": round(seconds, 3),
        "throughput": round(number / seconds, 3),
    }


if __name__ == "__main__":
    main()
