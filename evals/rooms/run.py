"""Ask a model the frozen RoomQA test questions under several merge settings; write accuracy by type as JSON.

python -m evals.rooms.run --model room-tiny --questions 1000 --out bench/results/rooms.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evals.inputs import frame_inputs
from evals.machine import write_result
from evals.rooms.questions import Question
from evals.rooms.score import accuracy_by_type, blind_guess
from evals.rooms.splits import TEST, VALIDATION, Example, digest, examples
from tosa import METHODS, MergePlan, MergeSpec, make_plan
from vlm import Vlm, answer_batch, encode, features, load_vlm, settle

KEEP_RATIOS = (0.5, 0.25, 0.1)
SPLITS = {"test": TEST, "validation": VALIDATION}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--model", default="room-tiny")
    args.add_argument("--split", choices=SPLITS, default="test")
    args.add_argument("--questions", type=int, default=1000)
    args.add_argument("--methods", nargs="*", default=[name for name in METHODS if name != "none"])
    args.add_argument("--keep-ratios", nargs="*", type=float, default=KEEP_RATIOS)
    args.add_argument("--out", type=Path)
    given = args.parse_args()

    vlm = load_vlm(given.model)
    split = list(examples(SPLITS[given.split], given.questions))
    specs = [MergeSpec()] + [
        MergeSpec(method=name, keep_ratio=ratio) for ratio in given.keep_ratios for name in given.methods
    ]
    plans = [make_plan(spec, vlm.shape) for spec in specs]
    result = {
        "model": {"id": given.model, "revision": vlm.revision},
        "split": {"name": given.split, "questions": given.questions, "sha256": digest(split)},
        "blind_guess": blind_guess([question for example in split for question in example.questions]),
        "runs": run(vlm, split, plans),
    }
    for merged in result["runs"]:
        print(json.dumps(merged))
    if given.out:
        write_result(given.out, result)


def run(vlm: Vlm, split: list[Example], plans: list[MergePlan]) -> list[dict[str, Any]]:
    """Ask every question under every plan, frame by frame: all plans share the machine's moods."""
    asked: list[Question] = [question for example in split for question in example.questions]
    answers: list[list[str]] = [[] for _ in plans]
    vision_ms: list[list[float]] = [[] for _ in plans]
    for example in tqdm(split, desc="frames"):
        pixels, spatial = frame_inputs(vlm, example.frame.rgb, example.frame.depth)
        texts = [question.question for question in example.questions]
        for index, plan in enumerate(plans):
            began = time.perf_counter()
            with torch.inference_mode():
                tokens = encode(vlm.tower, pixels, plan, spatial)
            settle(vlm.device)
            vision_ms[index].append((time.perf_counter() - began) * 1000)
            answers[index] += answer_batch(vlm, features(vlm, tokens), texts, max_new_tokens=8)
    return [
        {
            "method": plan.method,
            "keep_ratio": plan.spec.keep_ratio or 1.0,
            "tokens_in": plan.tokens_in,
            "tokens_out": plan.tokens_out,
            "vit_flops_ratio": round(plan.flops_ratio, 4),
            "median_vision_ms": round(statistics.median(vision_ms[index]), 2),
            "accuracy": {
                kind: round(value, 4) for kind, value in accuracy_by_type(asked, answers[index]).items()
            },
        }
        for index, plan in enumerate(plans)
    ]


if __name__ == "__main__":
    main()
