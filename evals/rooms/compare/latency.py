"""Latency of vision and of a whole answer under every plan, interleaved, one request at a time.

Each round times every plan once, in random order, and the unmerged baseline several times: the spread of
these controls shows which differences are noise.
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

from evals.rooms.compare.evaluator import MAX_NEW_TOKENS
from evals.rooms.compare.variants import work
from evals.rooms.depth_sources import spatial_from
from evals.rooms.splits import Example
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
CONTROLS = 6  # timings of the unmerged baseline in a round


@dataclass(frozen=True)
class _Request:
    pixels: Tensor
    spatial: Tensor
    question: str


@torch.inference_mode()
def measure(
    vlm: Vlm, plans: Sequence[MergePlan], split: Sequence[Example], estimator: str, rounds: int
) -> dict[str, Any]:
    """Time all plans, the first of them without merging, `rounds` times each on as many frames.

    Returns medians in milliseconds for each plan in order, speed-ups against the baseline of the same round,
    and the time of the two steps that prepare depth. Times nothing if `rounds` is 0.
    """
    if not rounds:
        return {"rounds": 0, "plans": [], "controls": [], "depth_ms": {}}
    requests = [_prepare(vlm, example) for example in split[: WARM_UP + rounds]]
    adapter, chance = adapt(vlm.tower), random.Random(0)
    indices = list(range(len(plans))) + [0] * (CONTROLS - 1)
    times: list[dict[int, list[tuple[float, float]]]] = []
    for number in tqdm(range(WARM_UP + rounds), desc="latency", unit="round"):
        chance.shuffle(indices)
        timed: dict[int, list[tuple[float, float]]] = {}
        for index in indices:
            request = requests[number % len(requests)]
            timed.setdefault(index, []).append(_time(vlm, adapter, request, plans[index]))
        times.append(timed)
    times = times[WARM_UP:]
    return {
        "rounds": rounds,
        "batch": 1,
        "plans": [_summary(times, index) for index in range(len(plans))],
        "controls": _controls(times),
        "depth_ms": _depth(vlm, split[:rounds], estimator),
    }


def by_work(plans: Sequence[MergePlan]) -> list[MergePlan]:
    """Drop plans that are the same work for the encoder as an earlier one."""
    return list({work(plan): plan for plan in reversed(plans)}.values())[::-1]


def _prepare(vlm: Vlm, example: Example) -> _Request:
    spatial = spatial_from(vlm, "true", "sinusoidal", [example], "")(example)
    pixels = pixel_values(vlm, [Image.fromarray(example.frame.rgb)])
    return _Request(pixels, spatial, example.questions[0].question)


def _time(vlm: Vlm, adapter: Any, request: _Request, plan: MergePlan) -> tuple[float, float]:
    """Return the milliseconds of vision, and of vision, prefill and decoding together."""
    began = time.perf_counter()
    tokens = encode(adapter, request.pixels, plan, request.spatial if plan.needs_spatial else None)
    synchronize(vlm.device)
    frame = time.perf_counter()
    projected = features(vlm, tokens)
    prompt = prompt_ids(vlm, request.question, [plan.tokens_out])
    generate(vlm, prompt, projected, GenerationParams(max_new_tokens=MAX_NEW_TOKENS))
    synchronize(vlm.device)
    return (frame - began) * 1000, (time.perf_counter() - began) * 1000


def _summary(times: Sequence[dict[int, list[tuple[float, float]]]], index: int) -> dict[str, float]:
    summary = {}
    for place, name in enumerate(("vision", "total")):
        mine = [statistics.median(pair[place] for pair in timed[index]) for timed in times]
        plain = [statistics.median(pair[place] for pair in timed[0]) for timed in times]
        summary[f"{name}_ms"] = round(statistics.median(mine), 2)
        ratios = [a / b for a, b in zip(plain, mine, strict=True)]
        summary[f"{name}_speed_up"] = round(statistics.median(ratios), 3)
    return summary


def _controls(times: Sequence[dict[int, list[tuple[float, float]]]]) -> list[float]:
    """Return the median vision time of each repetition of the baseline."""
    return [round(statistics.median(timed[0][place][0] for timed in times), 2) for place in range(CONTROLS)]


def _depth(vlm: Vlm, split: Sequence[Example], estimator: str) -> dict[str, float]:
    """Time what depth adds before vision: coding a given map, or estimating and coding it."""
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
