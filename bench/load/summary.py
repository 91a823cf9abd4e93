"""Numbers from samples: latencies, outcomes, throughput, and the delay that the generator itself added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import numpy as np

from bench.load.requests import Outcome, Sample

STAGES = (
    "receive",
    "queue",
    "decode",
    "preprocess",
    "estimate",
    "depth",
    "vision",
    "prefill",
    "generate",
    "total",
)


def summarise(samples: Sequence[Sample], slo_ms: float | None = None) -> dict[str, Any]:
    """Return counts by outcome, latencies of answers and refusals, throughput, and the generator's own noise.

    `lost` counts requests without a whole response; there should be none, whatever the load. `goodput` is
    answers per second that took at most `slo_ms`.
    """
    counts = Counter(one.outcome for one in samples)
    answered = [one for one in samples if one.is_answer]
    seconds = _seconds(samples)
    good = [one for one in answered if slo_ms is None or one.latency_ms <= slo_ms]
    return {
        "sent": len(samples),
        **{outcome: counts[outcome] for outcome in get_args(Outcome)},
        "seconds": round(seconds, 3),
        "throughput": round(len(answered) / seconds, 3),
        "goodput": round(len(good) / seconds, 3),
        "slo_ms": None if slo_ms is None else round(slo_ms, 1),
        "latency_ms": percentiles(one.latency_ms for one in answered),
        "refused_ms": percentiles(one.latency_ms for one in samples if one.is_refusal),
        "codes": dict(Counter(one.code() for one in samples if one.outcome in ("refused", "failed"))),
        "lost_how": dict(Counter(one.lost for one in samples if one.outcome == "lost")),
        "noise_ms": percentiles(one.lateness_ms for one in samples),
        "without_retry_after": sum(
            one.is_refusal and one.response is not None and "retry-after" not in one.response.headers
            for one in samples
        ),
    }


def by_label(samples: Sequence[Sample], slo_ms: float | None = None) -> dict[str, dict[str, Any]]:
    """Return a summary for every label; the throughput of each is over the time of all."""
    seconds = _seconds(samples)
    summaries = {
        label: summarise([one for one in samples if one.label == label], slo_ms)
        for label in dict.fromkeys(one.label for one in samples)
    }
    for summary in summaries.values():
        summary["throughput"] = round(summary["answered"] / seconds, 3)
    return summaries


def stages(samples: Iterable[Sample]) -> dict[str, float]:
    """Return the median milliseconds of every stage that the answers report."""
    reported = [one.answer().get("timings_ms", {}) for one in samples if one.is_answer]
    medians = {
        stage: [timings[stage] for timings in reported if timings.get(stage) is not None] for stage in STAGES
    }
    return {stage: round(float(np.median(values)), 2) for stage, values in medians.items() if values}


def percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """Return p50, p90, p99 and the largest, or None of nothing."""
    found = np.asarray(list(values))
    if not len(found):
        return None
    p50, p90, p99 = np.percentile(found, (50, 90, 99))
    named = {"p50": p50, "p90": p90, "p99": p99, "max": found.max()}
    return {name: round(float(value), 3) for name, value in named.items()}


def over_time(
    samples: Sequence[Sample], wanted: Callable[[Sample], bool], bin_s: float = 0.5
) -> list[list[float]]:
    """Return [seconds since the first was due, per second] of the samples wanted, by when they ended."""
    start = min(one.due_s for one in samples)
    bins = Counter(int((one.ended_s - start) / bin_s) for one in samples if wanted(one))
    return [
        [round((index + 0.5) * bin_s, 3), round(bins[index] / bin_s, 2)]
        for index in range(max(bins, default=-1) + 1)
    ]


def _seconds(samples: Sequence[Sample]) -> float:
    if not samples:
        return 1e-9
    return max(one.ended_s for one in samples) - min(one.due_s for one in samples) or 1e-9
