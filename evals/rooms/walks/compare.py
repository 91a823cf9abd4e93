"""Measure methods across frames on frozen RoomQA walks, and write the results as one JSON.

python -m evals.rooms.walks.compare --walks 64 --out bench/results/walks.json
It can be stopped at any time and run again: finished settings are not measured again, and --finished
reports them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evals.machine import write_result
from evals.rooms.compare.result_store import ResultStore
from evals.rooms.compare.workers import ComparisonError
from evals.rooms.walks import report
from evals.rooms.walks.coverage import CELL_M, NEAR_M, SAME_M, truth_of
from evals.rooms.walks.evaluate import Measured, encode_ms, measure
from evals.rooms.walks.select import Key
from evals.rooms.walks.settings import (
    BUDGETS,
    CONTROL_BUDGET,
    FRAME_COUNTS,
    INSIDE,
    Setting,
    settings,
)
from evals.rooms.walks.splits import (
    TEST_WALKS,
    VALIDATION_WALKS,
    WalkExample,
    walk_digest,
    walk_examples,
)
from evals.rooms.walks.towers import Towers
from vlm import VlmError, load_vlm

KEPT = Path("runs") / "walks.jsonl"
CACHE = Path("runs") / "walk_frames"
SPLITS = {"test": TEST_WALKS, "validation": VALIDATION_WALKS}


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments().parse_args(arguments)
    try:
        compare(given)
    except (ComparisonError, VlmError) as error:
        sys.exit(f"error: {error}")


def compare(given: argparse.Namespace) -> None:
    """Measure what is not stored yet, and write the result after every setting."""
    torch.set_num_threads(given.threads)
    vlm = load_vlm(given.model)
    split = list(walk_examples(SPLITS[given.split], given.walks))
    about = {
        "model": {"id": given.model, "revision": vlm.revision},
        "split": _described(given.split, split) | report.asked_types(split, given.words),
    }
    if given.fresh:
        given.kept.unlink(missing_ok=True)
    store = ResultStore(given.kept, about)
    towers = Towers(vlm, given.cache)
    truths = [truth_of(example, vlm.shape.grid[0]) for example in split]
    for inside in INSIDE:
        if f"encode {inside}" not in store:
            store.append(f"encode {inside}", encode_ms(towers, split[0], inside))
    frame_ms = {inside: store[f"encode {inside}"] for inside in INSIDE}
    found: dict[Setting, Measured] = {}
    keys: dict[tuple[int, Setting], Key] = {}
    every = first_things_first(settings(given.frames, given.budgets, not given.without_controls))
    for setting in tqdm(every, unit="setting"):
        if setting.name not in store and given.finished:
            continue
        if setting.name not in store:
            store.append(
                setting.name, asdict(measure(vlm, towers, split, truths, setting, given.words, keys))
            )
        found[setting] = Measured(**store[setting.name])
    result = about | _measures(frame_ms) | {"settings": report.rows(split, found, given.words, frame_ms)}
    for row in result["settings"]:
        print(f"{100 * row['things'][0]:5.1f} {100 * row['surface'][0]:5.1f}  {row['name']}")
    if given.out:
        write_result(given.out, result)


def first_things_first(every: Sequence[Setting]) -> list[Setting]:
    """Order settings so that a run that is stopped has the budget of the controls first, of all frames."""
    return sorted(every, key=lambda one: (one.budget != CONTROL_BUDGET, one.frames, one.geometry != "true"))


def _described(name: str, split: Sequence[WalkExample]) -> dict[str, Any]:
    kinds = [example.walk.kind for example in split]
    return {
        "name": name,
        "walks": len(split),
        "routes": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "sha256": walk_digest(split),
    }


def _measures(frame_ms: dict[str, float]) -> dict[str, Any]:
    return {
        "measures": {"near_m": NEAR_M, "same_m": SAME_M, "cell_m": CELL_M},
        "encode_ms_per_frame": frame_ms,
    }


def _arguments() -> argparse.ArgumentParser:
    args = argparse.ArgumentParser(prog="python -m evals.rooms.walks.compare", description=__doc__)
    args.add_argument("--model", default="room-tiny")
    args.add_argument("--split", choices=SPLITS, default="test")
    args.add_argument("--walks", type=int, default=64)
    args.add_argument("--frames", nargs="+", type=int, choices=FRAME_COUNTS, default=FRAME_COUNTS)
    args.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="visual tokens, separators too")
    args.add_argument("--without-controls", action="store_true", help="leave out wrong poses and depth")
    args.add_argument(
        "--words",
        choices=("plain", "walks"),
        default="plain",
        help="plain: only questions that single scenes have too, for a model that learned no walks",
    )
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--kept", type=Path, default=KEPT, help="file of finished settings, to resume from")
    args.add_argument("--cache", type=Path, default=CACHE, help="folder of encoded frames")
    args.add_argument("--fresh", action="store_true", help="delete the file of finished settings first")
    args.add_argument(
        "--finished", action="store_true", help="measure nothing more, and report what there is"
    )
    args.add_argument("--out", type=Path)
    return args


if __name__ == "__main__":
    main()
