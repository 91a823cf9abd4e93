"""Time the first token of models of full size with random weights; write bench/results/full_size.json.

python -m bench.full_size --models llava-onevision-0.5b qwen3-vl-2b
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from bench.full_size.arms import HEIGHT, KEEP_RATIOS, WIDTH, arms_of, frame
from bench.full_size.checkpoints import SHAPES, SIZES, Size, write_checkpoint
from bench.full_size.measure import measure, service, summarise
from evals.environment import Environment
from evals.machine import write_result
from vlm.families import family_of

RESULT = Path(__file__).parents[1] / "results" / "full_size.json"
SHOWN = (
    *("views", "method", "keep_ratio", "refused", "visual_tokens", "first_token_ms", "first_token_ratio"),
    *("vision_ms", "vision_ratio", "vision_flops_ratio"),
    *("prefill_ms", "prefill_ratio", "prefill_flops_ratio", "rest_ms"),
)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--keep", type=float, nargs="+", default=KEEP_RATIOS)
    args.add_argument("--size", choices=SIZES, default="full", help="tiny: to try this program")
    args.add_argument("--device", default="cpu")
    args.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    logging.disable_progress_bar()

    measured: list[dict[str, Any]] = []
    environment: Environment = {}
    for name in given.models:
        measured_now, environment = model(
            name, given.size, given.device, given.dtype, given.keep, given.rounds
        )
        measured.append(measured_now)
    result = {
        "environment": environment,
        "rounds": given.rounds,
        "size": given.size,
        "frame_px": [WIDTH, HEIGHT],
        "device": given.device,
        "dtype": given.dtype,
        "models": measured,
    }
    write_result(given.out, result)


def model(
    name: str, size: Size, device: str, dtype: str, keep_ratios: Sequence[float], rounds: int
) -> tuple[dict[str, Any], Environment]:
    """Measure one model; return its part of the result, and the environment of its server."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_checkpoint(Path(folder), name, size)
        arms = arms_of(name, keep_ratios)
        with service(Path(folder), device, dtype) as running:
            found = measure(running.url, arms, frame(), rounds)
            environment = running.environment()
        runs = summarise(arms, found, family_of(written.config, Path(folder)))
    for run in runs:
        print(name, *(run[key] for key in SHOWN if key in run), flush=True)
    return {"name": name, "parameters": written.parameters, "runs": runs}, environment


if __name__ == "__main__":
    main()
