"""Throughput of one arm, repeated frames, and the second question about a frame."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from bench.language.arms import Arm
from bench.load.corpus import view
from bench.load.generator import Target, closed_loop
from bench.load.requests import Request, Sample
from bench.load.serving import Serving
from bench.load.summary import percentiles, summarise
from bench.vllm_server import metrics

Part = dict[str, Any]


async def throughput(
    arm: Arm, server: Serving, frames: range, clients: int, answer_tokens: Sequence[int]
) -> Part:
    """Ask one question about every frame, each for the first time, `clients` at a time."""
    requests = [
        arm.request(frame, max_tokens=answer_tokens[at % len(answer_tokens)])
        for at, frame in enumerate(frames)
    ]

    with closing(Target.of(server.url, timeout_s=300)) as target:
        return _summary(arm, await closed_loop(target, requests, clients))


async def repeated(arm: Arm, server: Serving, frames: range, questions: int) -> Part:
    """Ask `questions` about each frame, one frame after the other, when every frame is known."""
    with closing(Target.of(server.url, timeout_s=300)) as target:
        await closed_loop(target, [arm.request(frame, questions) for frame in frames], 1)
        requests = [arm.request(frame, at) for frame in frames for at in range(questions)]
        return _summary(arm, await closed_loop(target, requests, 1))


async def second_question(arm: Arm, server: Serving, language: Serving, frames: range) -> Part:
    """Ask twice about each frame; return the times to the first token, and what vLLM read of the second."""
    first, second, read = list[float](), list[float](), list[tuple[int, int]]()
    with closing(Target.of(server.url, timeout_s=300)) as target:
        for frame in frames:
            first.append(await _first_token_ms(target, arm.request(frame, 0, stream=True)))
            before = prefix_cache(language)
            second.append(await _first_token_ms(target, arm.request(frame, 1, stream=True)))
            after = prefix_cache(language)
            read.append((after[0] - before[0], after[1] - before[1]))
    return {
        "first_ms": percentiles(first),
        "second_ms": percentiles(second),
        "ratio": round(statistics.median(second) / statistics.median(first), 3),
        "prompt_tokens": statistics.median(asked for asked, _ in read),
        "cached_tokens": statistics.median(hit for _, hit in read),
    }


def prefix_cache(server: Serving) -> tuple[int, int]:
    """Return how many prompt tokens vLLM has looked for in its prefix cache, and how many it had."""
    found = metrics(server.url)
    return round(found["vllm:prefix_cache_queries_total"]), round(found["vllm:prefix_cache_hits_total"])


async def _first_token_ms(target: Target, request: Request) -> float:
    (sample,) = await closed_loop(target, [request], 1)
    moments = sample.event_moments()
    if not sample.is_answer or not moments:
        raise ValueError(f"no stream: {sample.status} {sample.answer()}")
    return 1000 * (moments[0] - sample.sent_s)


def _summary(arm: Arm, samples: Sequence[Sample]) -> Part:
    failed = next((one for one in samples if not one.is_answer), None)
    if failed is not None:
        raise ValueError(f"{arm.name} was not answered: {failed.status} {failed.lost} {failed.answer()}")
    bodies = [(int(one.label), one.answer()) for one in samples]
    summary = summarise(samples)
    seconds, tokens = summary["seconds"], sum(arm.tokens(body) for _, body in bodies)
    right = sum(arm.answer(body) == view(frame).answers[0] for frame, body in bodies)
    return {
        **summary,
        "ms_an_answer": round(1000 * seconds / len(samples), 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "right": right,
    }
