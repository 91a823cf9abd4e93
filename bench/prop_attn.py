"""Time proportional attention in its two forms against plain attention; write bench/results/prop_attn.json.

python -m bench.prop_attn --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from evals.machine import write_result
from tosa import attention, attention_by_channel
from vlm import synchronize

RESULT = Path(__file__).parent / "results" / "prop_attn.json"
SHAPES = {"siglip-so400m": (16, 729, 72), "room-tiny": (3, 576, 64)}  # heads, tokens, head dim
WARM_UP, ROUNDS = 5, 20


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--device", default="cpu")
    args.add_argument("--batch", type=int, default=1)
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    device = torch.device(given.device)
    result = {
        "batch": given.batch,
        "device": given.device,
        "dtype": "bfloat16",
        "rounds": ROUNDS,
        "median_ms": {name: measure((given.batch, *shape), device) for name, shape in SHAPES.items()},
    }
    write_result(given.out, result)
    print(json.dumps(result["median_ms"]))


@torch.inference_mode()
def measure(shape: tuple[int, int, int, int], device: torch.device) -> dict[str, float]:
    """Median milliseconds of each form on random [B, H, N, D] inputs, interleaved."""
    q, k, v = (torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(3))
    size = torch.randint(1, 9, (shape[0], shape[2]), device=device).float()
    forms: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: attention(q, k, v),
        "mask": lambda: attention(q, k, v, size),
        "channel": lambda: attention_by_channel(q, k, v, size),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(WARM_UP + ROUNDS):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            synchronize(device)
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


if __name__ == "__main__":
    main()
