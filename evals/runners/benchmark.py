"""The interface of a benchmark to the command line, and the report that all benchmarks share."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from evals.intervals import interval
from evals.runners.asking import Answer
from evals.runners.items import Entry, Scores


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark.

    load: `load(data, **options)` reads the entries of a folder. finish: `finish(entries, texts, folder,
    **options)` writes the official predictions file into `folder` and scores; texts are in the order of the
    entries, "" for a question without an answer. load_options, finish_options: the command-line options of
    each, whose names are those of its parameters; an option that was not given is not passed on.
    """

    name: str
    about: str
    load: Callable[..., list[Any]]
    finish: Callable[..., Scores]
    load_options: tuple[click.Option, ...] = ()
    finish_options: tuple[click.Option, ...] = ()


def report(
    entries: Sequence[Entry[Any]], answers: Mapping[str, Answer], scores: Scores, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the report for JSON: the questions and the answerer, the scores, and the cost."""
    given = [answers[entry.item.id] for entry in entries]
    there = [answer.report for answer in given if answer.code is None]
    return {
        "settings": dict(settings),
        "questions": len(entries),
        "unanswered": dict(Counter(answer.code for answer in given if answer.code is not None)),
        "not_scored": sum(value is None for value in scores.values),
        "overall": None if scores.overall is None else round(scores.overall, 4),
        "mean_score_interval_95": _interval(entries, scores),
        "scores": dict(scores.table),
        "merge": _merge(there),
        "depth_sources": dict(Counter((one["depth"] or {}).get("source", "unused") for one in there)),
        "tokens": _tokens(there),
        "cached": sum(bool(one["cached"]) for one in there),
        "median_ms": _medians(there),
    }


def texts_of(entries: Sequence[Entry[Any]], answers: Mapping[str, Answer]) -> list[str]:
    """Return the texts in the order of the entries, "" where there is no answer."""
    return [answers[entry.item.id].text for entry in entries]


def _interval(entries: Sequence[Entry[Any]], scores: Scores) -> list[float] | None:
    """Return the bootstrap interval of the mean score; questions about the same images are drawn together."""
    frames: dict[tuple[Path, ...], list[float]] = defaultdict(list)
    for entry, value in zip(entries, scores.values, strict=True):
        if value is not None:
            frames[entry.item.images].append(value)
    return [round(edge, 4) for edge in interval(list(frames.values()))] if frames else None


def _merge(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Summarise merging, which is the same for all answers but for the number of tokens."""
    done = reports[0]["merge"] if reports else None
    return done and {name: value for name, value in done.items() if name not in ("tokens_in", "tokens_out")}


def _tokens(reports: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return means over the answers: visual tokens before and after merging, tokens of prompt and answer."""
    return {
        "visual_in": _mean(one["merge"]["tokens_in"] for one in reports),
        "visual_out": _mean(one["merge"]["tokens_out"] for one in reports),
        "prompt": _mean(one["usage"]["prompt_tokens"] for one in reports),
        "answer": _mean(one["usage"]["completion_tokens"] for one in reports),
    }


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(statistics.fmean(found), 2) if found else None


def _medians(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median of each stage over the answers it ran for; a cached frame skips the encoder."""
    spent: dict[str, list[float]] = defaultdict(list)
    for one in reports:
        for stage, ms in one["timings_ms"].items():
            if ms is not None:
                spent[stage].append(ms)
    return {stage: round(statistics.median(ms), 2) for stage, ms in spent.items()}
