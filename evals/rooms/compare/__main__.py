"""Evaluate all methods on the same frozen RoomQA questions, time them, and write the results as one JSON.

python -m evals.rooms.compare --questions 1000 --out bench/results/comparison.json
It can be stopped at any time and run again: finished variants are not evaluated again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from depth.estimators import load_depth_estimator
from evals.machine import write_result
from evals.rooms.compare import report
from evals.rooms.compare.by_condition import by_condition
from evals.rooms.compare.evaluator import TOGETHER, VariantResult, joined, stretches
from evals.rooms.compare.latency import by_work, measure
from evals.rooms.compare.result_store import ResultStore
from evals.rooms.compare.variants import (
    ABLATED_RATIOS,
    KEEP_RATIOS,
    SCHEDULES,
    Ablation,
    Planned,
    Variant,
    ablations,
    compared,
    plan_all,
    with_controls,
    work,
)
from evals.rooms.compare.workers import SPLITS, ComparisonError, Job, evaluate_in_processes
from evals.rooms.conditions import ALL_CONDITIONS, CLEAN, Condition, condition_of, label_of
from evals.rooms.score import blind_guess
from evals.rooms.splits import Example, digest, examples
from tosa import METHODS
from vlm import Vlm, VlmError, load_vlm

KEPT = Path("runs") / "comparison.jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments().parse_args(arguments)
    given.conditions = list(dict.fromkeys(chain.from_iterable(given.conditions or [])))
    try:
        compare(given)
    except (ComparisonError, VlmError) as error:
        sys.exit(f"error: {error}")


def compare(given: argparse.Namespace) -> None:
    """Evaluate and time what is not stored yet, and write the result."""
    if given.fresh:
        given.kept.unlink(missing_ok=True)
    if given.conditions:
        compare_conditions(given)
        return
    vlm = load_vlm(given.model)
    job = Job(given.model, given.estimator, given.split, given.questions)
    split = list(examples(SPLITS[job.split], job.questions))
    variants = compared(given.methods, given.keep_ratios, given.schedules, not given.without_estimate)
    changes = ablations(given.methods, given.ablated_ratios, vlm.shape.num_layers)
    planned = plan_all([*variants, *_of(changes)], vlm.shape)
    about = _about(vlm, job, split)
    store = ResultStore(given.kept, about)
    results = ask(job, planned, store, given.processes)
    timed = latency(vlm, planned, store, split, given)
    result = about | found(split, planned, variants, changes, results, timed)
    for row in result["settings"]:
        print(f"{100 * row['accuracy']['overall'][0]:5.1f}  {row['name']}")
    if given.out:
        write_result(given.out, result)


def compare_conditions(given: argparse.Namespace) -> None:
    """Evaluate what is not stored yet under every condition; no time is measured, for none depends on it.

    Some frames after the other, under all conditions each: a run that is stopped has asked as many questions
    under each of them, and the result says how many.
    """
    vlm = load_vlm(given.model)
    job = Job(given.model, given.estimator, given.split, given.questions)
    split = list(examples(SPLITS[job.split], job.questions))
    controlled = given.alphas if given.controlled is None else given.controlled
    variants = compared(given.methods, given.keep_ratios, given.schedules, False)
    planned = plan_all(with_controls(variants, given.alphas, controlled), vlm.shape)
    store = ResultStore(given.kept, _about(vlm, job, split))
    labels = {label_of(condition): condition for condition in given.conditions}
    results = dict[str, dict[Variant, VariantResult]]()
    result = dict[str, Any]()
    for frames in stretches(len(split), given.frames_at_once):
        for label, condition in labels.items():
            part = ask(replace(job, condition=condition, frames=frames), planned, store, given.processes)
            before = results.get(label)
            results[label] = part if before is None else joined(before, part)
        reached = split[: frames[1]]
        result = _about(vlm, job, reached) | by_condition(reached, planned, results)
        if given.out:
            write_result(given.out, result)
        print(f"{result['split']['questions']} questions under each of {len(labels)} conditions")
    for row in result["together"]:
        print(f"{100 * row['accuracy'][0]:5.1f}  {row['name']}")


def ask(job: Job, planned: Planned, store: ResultStore, processes: int) -> dict[Variant, VariantResult]:
    """Evaluate the variants that are not stored, and store them; return the results of all."""
    evaluated = [variant for variant in planned.plans if variant not in planned.same_as]
    before = "" if job.condition is None else f"{job.condition.label}, "
    after = "" if job.frames is None else f", frames {job.frames[0]} to {job.frames[1] - 1}"
    todo = [variant for variant in evaluated if f"{before}{variant.name}{after}" not in store]
    began = time.monotonic()
    with tqdm(total=len(evaluated), initial=len(evaluated) - len(todo), unit="variant") as bar:
        results = evaluate_in_processes(job, todo, processes) if todo else ()
        for variant, result in zip(todo, results, strict=True):
            store.append(f"{before}{variant.name}{after}", asdict(result))
            bar.update()
    if todo:
        print(f"evaluated {len(todo)} variants in {(time.monotonic() - began) / 60:.1f} min")
    return {
        variant: VariantResult(**store[f"{before}{planned.same_as.get(variant, variant).name}{after}"])
        for variant in planned.plans
    }


def latency(
    vlm: Vlm, planned: Planned, store: ResultStore, split: Sequence[Example], given: argparse.Namespace
) -> dict[str, Any]:
    """Time every plan, unless stored; all in one run, so that load on the machine affects all alike."""
    plans = by_work(list(planned.plans.values()))
    key = f"latency of {len(plans)} plans in {given.rounds} rounds"
    if key not in store:
        store.append(key, measure(vlm, plans, split, given.estimator, given.rounds))
    return store[key] | {"work": [work(plan) for plan in plans]}


def found(
    split: Sequence[Example],
    planned: Planned,
    variants: Sequence[Variant],
    changes: Sequence[Ablation],
    results: dict[Variant, VariantResult],
    timed: dict[str, Any],
) -> dict[str, Any]:
    """Build the result from the answers and the timings."""
    right = {variant: report.rights(split, result) for variant, result in results.items()}
    times = dict(zip(timed["work"], timed["plans"], strict=bool(timed["plans"])))
    rows = report.variant_rows(split, planned, results, right, times)
    names = {variant.name for variant in variants}
    compared_rows = [row for row in rows if row["name"] in names]
    tested = [variant for variant in variants if variant in right]
    front = report.pareto(compared_rows, timed["depth_ms"]) if times else []
    return {
        "blind_guess": blind_guess([question for example in split for question in example.questions]),
        "compared": [row["name"] for row in compared_rows],
        "settings": rows,
        "refused": report.refused_rows(planned),
        "tests": report.paired_tests(tested, right),
        "pooled": report.pooled(tested, right),
        "ablations": report.ablation_rows(changes, right),
        "latency": {name: timed[name] for name in ("rounds", "controls", "depth_ms")},
        "pareto": front,
    }


def _about(vlm: Vlm, job: Job, split: Sequence[Example]) -> dict[str, Any]:
    """Describe the model, the estimator, the questions and the images."""
    estimator = load_depth_estimator(job.estimator)
    digest_of_images = hashlib.sha256(b"".join(example.frame.rgb.tobytes() for example in split)).hexdigest()
    return {
        "model": {"id": job.model, "revision": vlm.revision},
        "estimator": {"id": job.estimator, "revision": estimator.revision},
        "split": {
            "name": job.split,
            "questions": sum(len(example.questions) for example in split),
            "frames": len(split),
            "sha256": digest(list(split)),
            "pictures_sha256": digest_of_images,
        }
        | report.question_types(split),
        "frames_together": TOGETHER,
    }


def _of(changes: Sequence[Ablation]) -> list[Variant]:
    found = [(one.variant, one.shipped, one.control) for one in changes]
    return [variant for variants in found for variant in variants if variant is not None]


def alpha_of(text: str) -> str | float:
    """Read the name of a schedule of ToSA's weights, or a number. Raises ValueError."""
    return text if text.isalpha() else float(text)


def conditions_of(label: str) -> list[Condition | None]:
    """Read "clean", "all" (all strengths of all, and clean) or a condition. Raises ArgumentTypeError."""
    if label == "all":
        return [None, *ALL_CONDITIONS]
    try:
        return [condition_of(label)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, {CLEAN} or all") from None


def _arguments() -> argparse.ArgumentParser:
    args = argparse.ArgumentParser(prog="python -m evals.rooms.compare", description=__doc__)
    merging = [name for name, method in METHODS.items() if method.merges]
    args.add_argument("--model", default="room-tiny")
    args.add_argument("--estimator", default="room-depth-tiny")
    args.add_argument("--split", choices=SPLITS, default="test")
    args.add_argument("--questions", type=int, default=1000)
    args.add_argument("--methods", nargs="*", choices=merging, default=merging)
    args.add_argument("--keep-ratios", nargs="*", type=float, default=KEEP_RATIOS)
    args.add_argument("--schedules", nargs="*", choices=SCHEDULES, default=SCHEDULES)
    args.add_argument("--without-estimate", action="store_true", help="leave out estimated depth")
    args.add_argument("--ablated-ratios", nargs="*", type=float, default=ABLATED_RATIOS)
    args.add_argument(
        "--conditions",
        nargs="+",
        action="extend",
        type=conditions_of,
        help="ask under these conditions instead: clean, dark (strength 2), noise:3, all",
    )
    args.add_argument(
        "--alphas",
        nargs="*",
        type=alpha_of,
        default=("increase",),
        help="with --conditions, ToSA's weights",
    )
    args.add_argument(
        "--controlled",
        nargs="*",
        type=alpha_of,
        help="those of --alphas that are also asked with another frame's depth; all by default",
    )
    args.add_argument(
        "--frames-at-once",
        type=int,
        default=64,
        help="with --conditions, frames that are asked about under all of them before the next ones",
    )
    args.add_argument("--processes", type=int, default=2, help="each with one torch thread")
    args.add_argument("--rounds", type=int, default=15, help="of timing; 0 to skip it")
    args.add_argument("--kept", type=Path, default=KEPT, help="file of finished variants, to resume from")
    args.add_argument("--fresh", action="store_true", help="delete that file first")
    args.add_argument("--out", type=Path)
    return args


if __name__ == "__main__":
    main()
