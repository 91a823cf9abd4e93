"""One model behind a service on loopback: every arm once in each round, and the medians over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from bench.full_size.arms import HEIGHT, WIDTH, Arm, Frame
from bench.full_size.flops import prefill_flops, vision_flops
from bench.load.serving import Serving, ours, serving
from tosa import MergeSpec
from vlm.families import Family

START_TIMEOUT_S = 600
REQUEST_TIMEOUT_S = 600
STAGES = ("vision", "prefill")
RATIOS = {
    "first_token_ratio": "first_token_ms",
    "vision_ratio": "vision_ms",
    "prefill_ratio": "prefill_ms",
    "vision_flops_ratio": "vision_flops",
    "prefill_flops_ratio": "prefill_flops",
    "flops_ratio": "flops",
}
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request: the time until its only token was read, in ms, and what was answered, or why not."""

    ms: float
    answer: Answer
    refused: str | None = None


@contextmanager
def service(folder: Path, device: str, dtype: str) -> Iterator[Serving]:
    """Serve a checkpoint alone, without an estimator of depth."""
    env = {
        "TOSA_VQA_DEVICE": device,
        "TOSA_VQA_DTYPE": dtype,
        "TOSA_VQA_REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S),
        "TOSA_VQA_STALL_EXIT_S": "0",
    }
    options = ("--model", str(folder), "--depth-model", "none")
    with serving(ours(*options), env=env, start_timeout_s=START_TIMEOUT_S) as running:
        yield running


def ask(client: httpx.Client, url: str, arm: Arm, frame: Frame) -> Asked:
    """Ask about the frame. Depth is sent to the method that uses it."""
    files = {"image": ("frame.jpg", frame.image)}
    if arm.method == "tosa":
        files["depth"] = ("depth.png", frame.depth)
    began = perf_counter()
    response = client.post(f"{url}/vqa", data=arm.fields, files=files)
    ms = 1000 * (perf_counter() - began)
    if response.status_code == 422:
        error = response.json()["error"]
        return Asked(ms, {}, f"{error['code']}: {error['message']}")
    answer = response.raise_for_status().json()
    assert not answer["cached"] and answer["usage"]["completion_tokens"] == 1, answer
    return Asked(ms, answer)


def measure(url: str, arms: Sequence[Arm], frame: Frame, rounds: int) -> list[list[Asked]]:
    """Ask every arm once in each round; return the requests of each arm.

    The service has warmed up; the last arm of each views, the quickest, is asked once more before.
    """
    found: list[list[Asked]] = [[] for _ in arms]
    with httpx.Client(timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
        for arm in {arm.views: arm for arm in arms}.values():
            ask(client, url, arm, frame)
        for _ in range(rounds):
            for arm, own in zip(arms, found, strict=True):
                own.append(ask(client, url, arm, frame))
    return found


def summarise(arms: Sequence[Arm], found: Sequence[Sequence[Asked]], family: Family) -> list[dict[str, Any]]:
    """Return a run for each arm: its medians, and their ratios to no merging of the same views."""
    runs: list[dict[str, Any]] = []
    plain: dict[str, dict[str, Any]] = {}
    for arm, own in zip(arms, found, strict=True):
        named = {"views": arm.views, "method": arm.method, "keep_ratio": arm.keep_ratio or 1.0}
        if own[0].refused is not None:
            runs.append({**named, "refused": own[0].refused})
            continue
        run = {**named, **_medians(own), **_facts(own[0].answer), **_flops(family, arm, own[0].answer)}
        base = plain.setdefault(arm.views, run)
        runs.append(run | {ratio: round(run[name] / base[name], 3) for ratio, name in RATIOS.items()})
    return runs


def _medians(own: Sequence[Asked]) -> dict[str, Any]:
    """Return medians in ms: at the client, with the range, and of every stage; rest: all but both models."""
    times = [asked.ms for asked in own]
    timings = [asked.answer["timings_ms"] for asked in own]
    ran = [stage for stage, ms in timings[0].items() if ms is not None]
    stages = {stage: round(statistics.median(each[stage] or 0.0 for each in timings), 1) for stage in ran}
    rest = [
        asked.ms - sum(each[stage] or 0.0 for stage in STAGES)
        for asked, each in zip(own, timings, strict=True)
    ]
    return {
        "first_token_ms": round(statistics.median(times), 1),
        "first_token_range_ms": [round(min(times), 1), round(max(times), 1)],
        **{f"{stage}_ms": stages[stage] for stage in STAGES},
        "rest_ms": round(statistics.median(rest), 1),
        "stages_ms": stages,
    }


def _facts(answer: Answer) -> dict[str, Any]:
    """Return what does not depend on the clock."""
    merge, seen = answer["merge"], answer["views"]
    return {
        "kept": round(merge["keep_ratio"], 4),
        "views_count": sum(each["count"] for each in seen),
        "visual_tokens": sum(each["tokens"] for each in seen),
        "prompt_tokens": answer["usage"]["prompt_tokens"],
        "saves": merge["saves"],
    }


def _flops(family: Family, arm: Arm, answer: Answer) -> dict[str, int]:
    """Return the operations of tower, language model, and both."""
    layouts = family.layouts([(HEIGHT, WIDTH)], arm.views)
    vision = vision_flops(family, layouts, MergeSpec(arm.method, keep_ratio=arm.keep_ratio))
    prefill = prefill_flops(family.config.text_config, answer["usage"]["prompt_tokens"])
    return {"vision_flops": vision, "prefill_flops": prefill, "flops": vision + prefill}
