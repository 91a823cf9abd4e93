"""Measure what merging leaves of a tower's patches: the shape of things, and the error of their distance.

python -m evals.dense --tower runs/stage2 --out bench/results/dense.json
Trains the tower if there is none, in about half an hour on two cores. Scenes are plain rooms outside the
training set, spoiled by each condition. Every interval is a paired bootstrap over scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evals.dense.probe import DEPTHS, Probed, Scores, probe, scenes, spatial_of, under
from evals.dense.report import measured, pooled, rows
from evals.dense.settings import Setting, settings_at
from evals.dense.tower import Tower, load_tower, make_tower
from evals.machine import write_result
from evals.rooms import TEST, VALIDATION
from evals.rooms.conditions import CLEAN, condition_of, label_of
from tosa import METHODS, MergeSpec, make_plan

SPLITS = {"test": TEST, "validation": VALIDATION}
NONE = Setting(MergeSpec())


def main(arguments: Sequence[str] | None = None) -> None:
    given = _arguments().parse_args(arguments)
    torch.set_num_threads(given.threads)
    if not (given.tower / "last.pt").exists():
        make_tower(given.tower, given.threads)
    tower = load_tower(given.tower)
    seeds = SPLITS[given.split][: given.scenes]
    result = compare(tower, scenes(seeds, tower.shape.grid[0]), given)
    for row in result["together"]:
        print(f"{row['keep_ratio']:<5g} {100 * row['shape'][0]:5.1f} {row['distance'][0]:.4f}  {row['name']}")
    if given.out:
        write_result(given.out, result)


def compare(tower: Tower, probed: Probed, given: argparse.Namespace) -> dict[str, Any]:
    """Probe every setting under every condition."""
    wanted = {
        keep: settings_at(keep, given.methods, given.alphas, given.depths) for keep in given.keep_ratios
    }
    all_settings = (NONE, *chain.from_iterable(wanted.values()))
    found = dict[str, dict[Setting, Scores]]()
    with tqdm(total=len(given.conditions) * len(all_settings), unit="setting") as bar:
        for label in given.conditions:
            seen = under(probed, condition_of(label))
            found[label] = {}
            for setting in all_settings:
                found[label][setting] = _probe(tower, seen, setting)
                bar.update()
    together = {setting: pooled([each[setting] for each in found.values()]) for setting in all_settings}
    return {
        "tower": {"digest": tower.digest, "steps": tower.step},
        "split": {"name": given.split, "scenes": len(probed.seeds), "first_seed": probed.seeds[0]},
        "conditions": {label: _described(each, wanted) for label, each in found.items()},
        "together": _described(together, wanted),
    }


def _probe(tower: Tower, seen: Probed, setting: Setting) -> Scores:
    spatial = None if setting.depth is None else spatial_of(seen, setting.depth, tower.shape.grid)
    return probe(tower, seen, make_plan(setting.spec, tower.shape), spatial)


def _described(found: dict[Setting, Scores], wanted: dict[float, list[Setting]]) -> list[dict[str, Any]]:
    none = found[NONE]
    described = [{"keep_ratio": 1.0, "name": "none", "method": "none"} | measured(none)]
    for keep, settings in wanted.items():
        alike = {setting: found[setting] for setting in settings}
        described += [{"keep_ratio": keep} | row for row in rows(alike, none)]
    return described


def _label(text: str) -> str:
    try:
        return label_of(condition_of(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, or {CLEAN}") from None


def _alpha(text: str) -> str | float:
    return text if text.isalpha() else float(text)


def _arguments() -> argparse.ArgumentParser:
    args = argparse.ArgumentParser(prog="python -m evals.dense", description=__doc__)
    merging = [name for name, method in METHODS.items() if method.merges]
    args.add_argument("--tower", type=Path, default=Path("runs/stage2"), help="folder of stage 2's last.pt")
    args.add_argument("--split", choices=SPLITS, default="test")
    args.add_argument("--scenes", type=int, default=60)
    args.add_argument("--conditions", nargs="+", type=_label, default=[CLEAN, "noise:2", "dark:2"])
    args.add_argument("--keep-ratios", nargs="+", type=float, default=(0.25, 0.1))
    args.add_argument("--methods", nargs="*", choices=merging, default=("tome", "tosa"))
    args.add_argument("--alphas", nargs="*", type=_alpha, default=("increase", 0.5, "auto"), help="of ToSA")
    args.add_argument("--depths", nargs="*", choices=DEPTHS, default=("true", "x and y", "shuffled"))
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--out", type=Path)
    return args


if __name__ == "__main__":
    main()
