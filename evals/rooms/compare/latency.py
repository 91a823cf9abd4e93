"""How long vision and a whole answer take under every plan, in turns, one request at a time.

Every round times each plan once, in an order of its own, and no merging several times among them: the
control, which says how far to trust a difference. Knows no accuracy.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evals.rooms.compare.asker import MAX_NEW_TOKENS
from evals.rooms.compare.settings import work
from evals.rooms.splits import Example
from evals.rooms.steering import spatial_from
from tosa import MergePlan
from vlm import (
    GenerationParams,
    Vlm,
    adapt,
    encode,
    features,
    generate,
    pixel_values,
    prompt_ids,
    synchronize,
)

WARM_UP = 2
CONTROLS = 6  # times that no merging is timed in a round


@dataclass(frozen=True)
class _Request:
    pixels: Tensor
    spatial: Tensor
    question: str


@torch.inference_mode()
def measure(
    vlm: Vlm, plans: Sequence[MergePlan], split: Sequence[Example], estimator: str, rounds: int
) -> dict[str, Any]:
    """Time all plans, the first of them no merging, `rounds` times each on as many frames.

    Gives medians in milliseconds for each plan in order, speed-ups against the controls of the same round,
    and how long the two steps take that make depth ready. Without rounds, nothing.
    """
    if not rounds:
        return {"rounds": 0, "plans": [], "controls": [], "depth_ms": {}}
    requests = [_prepare(vlm, example) for example in split[: WARM_UP + rounds]]
    host, chance = adapt(vlm.tower), random.Random(0)
    turns = list(range(len(plans))) + [0] * (CONTROLS - 1)
    times: list[dict[int, list[tuple[float, float]]]] = []
    for number in tqdm(range(WARM_UP + rounds), desc="latency", unit="round"):
        chance.shuffle(turns)
        timed: dict[int, list[tuple[float, float]]] = {}
        for turn in turns:
            request = requests[number % len(requests)]
            timed.setdefault(turn, []).append(_time(vlm, host, request, plans[turn]))
        times.append(timed)
    times = times[WARM_UP:]
    return {
        "rounds": rounds,
        "batch": 1,
        "plans": [_summary(times, turn) for turn in range(len(plans))],
        "controls": _controls(times),
        "depth_ms": _depth(vlm, split[:rounds], estimator),
    }


def by_work(plans: Sequence[MergePlan]) -> list[MergePlan]:
    """Drop plans under which the encoder does what it does under an earlier one."""
    return list({work(plan): plan for plan in reversed(plans)}.values())[::-1]


def _prepare(vlm: Vlm, example: Example) -> _Request:
    spatial = spatial_from(vlm, "true", "sinusoidal", [example], "")(example)
    pixels = pixel_values(vlm, [Image.fromarray(example.frame.rgb)])
    return _Request(pixels, spatial, example.questions[0].question)


def _time(vlm: Vlm, host: Any, request: _Request, plan: MergePlan) -> tuple[float, float]:
    """Give the milliseconds of vision, and of vision, reading and answering together."""
    began = time.perf_counter()
    tokens = encode(host, request.pixels, plan, request.spatial if plan.needs_spatial else None)
    synchronize(vlm.device)
    seen = time.perf_counter()
    projected = features(vlm, tokens)
    prompt = prompt_ids(vlm, request.question, [plan.tokens_out])
    generate(vlm, prompt, projected, GenerationParams(max_new_tokens=MAX_NEW_TOKENS))
    synchronize(vlm.device)
    return (seen - began) * 1000, (time.perf_counter() - began) * 1000


def _summary(times: Sequence[dict[int, list[tuple[float, float]]]], turn: int) -> dict[str, float]:
    summary = {}
    for place, name in enumerate(("vision", "total")):
        mine = [statistics.median(pair[place] for pair in timed[turn]) for timed in times]
        plain = [statistics.median(pair[place] for pair in timed[0]) for timed in times]
        summary[f"{name}_ms"] = round(statistics.median(mine), 2)
        ratios = [a / b for a, b in zip(plain, mine, strict=True)]
        summary[f"{name}_speed_up"] = round(statistics.median(ratios), 3)
    return summary


def _controls(times: Sequence[dict[int, list[tuple[float, float]]]]) -> list[float]:
    """Give the median vision time of each repetition of no merging."""
    return [round(statistics.median(timed[0][place][0] for timed in times), 2) for place in range(CONTROLS)]


def _depth(vlm: Vlm, split: Sequence[Example], estimator: str) -> dict[str, float]:
    """Time what comes before vision where depth is needed: coding what was sent, or estimating it too."""
    spent = {}
    for source in ("true", "estimated"):
        code = spatial_from(vlm, source, "sinusoidal", split, estimator)
        code(split[0])
        spent[source] = round(statistics.median(_milliseconds(code, example) for example in split), 2)
    return spent


def _milliseconds(code: Callable[[Example], Tensor], example: Example) -> float:
    began = time.perf_counter()
    code(example)
    return (time.perf_counter() - began) * 1000
