"""Worker processes with one torch thread each, which evaluate variants on a share of the frames.

The batches do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from evals.rooms.compare.evaluator import Evaluator, VariantResult, batches_of, concatenated
from evals.rooms.compare.variants import Variant
from evals.rooms.conditions import Condition, spoiled_split
from evals.rooms.splits import TEST, VALIDATION, Example, examples
from tosa import make_plan
from vlm import load_vlm

SPLITS = {"test": TEST, "validation": VALIDATION}


class ComparisonError(Exception):
    """One sentence: why a comparison cannot continue, and what to do."""


@dataclass(frozen=True)
class Job:
    """The model, estimator and questions, the same for every process.

    condition: what spoils the pictures; frames: the first and the end of those that are asked about, whole
    batches, None for all.
    """

    model: str
    estimator: str
    split: str
    questions: int
    condition: Condition | None = None
    frames: tuple[int, int] | None = None


def evaluate_in_processes(job: Job, variants: Sequence[Variant], processes: int) -> Iterator[VariantResult]:
    """Evaluate all variants in order; yield each result as soon as it is complete.

    Raises ComparisonError when a process ends before its work is done.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's locked thread pool
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        context.Process(target=evaluate_share, args=(job, variants, share, processes, sender), daemon=True)
        for share, (_, sender) in enumerate(pipes)
    ]
    for worker, (_, sender) in zip(workers, pipes, strict=True):
        worker.start()
        sender.close()  # our copy: while it is open, the end of the worker goes unnoticed
    try:
        for _ in variants:
            yield concatenated(_in_order([_receive(receiver) for receiver, _ in pipes]))
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def evaluate_share(
    job: Job, variants: Sequence[Variant], share: int, shares: int, results: Connection
) -> None:
    """Evaluate every variant on each `shares`-th batch from `share` on; send a list of results for each."""
    torch.set_num_threads(1)
    vlm = load_vlm(job.model)
    split, batches = asked(job)
    evaluator = Evaluator(vlm, split, batches[share::shares], job.estimator)
    for variant in variants:
        results.send(evaluator.evaluate(variant, make_plan(variant.spec, vlm.shape)))


def asked(job: Job) -> tuple[list[Example], list[list[int]]]:
    """Render the split, and say which batches of it are asked about; only their pictures are spoiled."""
    split = list(examples(SPLITS[job.split], job.questions))
    first, end = job.frames or (0, len(split))
    split[first:end] = spoiled_split(split[first:end], job.condition)
    return split, [batch for batch in batches_of(len(split)) if first <= batch[0] < end]


def _receive(receiver: Connection) -> list[VariantResult]:
    try:
        return receiver.recv()
    except EOFError:
        message = "a process ended in the middle of its work; its error stands above. Run it again to go on"
        raise ComparisonError(message) from None


def _in_order(shares: Sequence[Sequence[VariantResult]]) -> list[VariantResult]:
    """Interleave the batches in the order of the split: the first of each share, then the second."""
    longest = max(map(len, shares))
    return [share[index] for index in range(longest) for share in shares if index < len(share)]
