"""OpenEQA, episodic memory (EM-EQA): its official predictions files, and the score from a judge's marks.

Without a judge there are predictions but no score; a question without a mark is not scored.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import httpx

from evals.intervals import interval
from evals.runners.asking import RunError
from evals.runners.benchmark import Benchmark
from evals.runners.items import Entry, Item, Scores
from evals.runners.judge import OPTIONS, Judge, describe, judged
from evals.runners.llm_match import OWN_PROMPTS, percent, read_prompts, until_last_period
from evals.runners.openeqa_episodes import LOAD_OPTIONS, Record, load

PREDICTIONS, METRICS, VERDICTS = "predictions.json", "predictions-metrics.json", "verdicts.jsonl"
UNANSWERED_MARK = 0
"""The official mark of a question without an answer; clipped, it is 0 %. No judge is asked."""

FINISH_OPTIONS = (
    click.Option(["--judge-url"], help="OpenAI-compatible endpoint of the judge: http://host:port/v1."),
    click.Option(["--judge-model"], help="Name of the judge's model at that endpoint."),
    click.Option(["--judge-key-env"], help="Environment variable with the judge's key."),
    click.Option(
        ["--judge-prompt"],
        type=click.Path(path_type=Path),
        help="Folder with the official mmbench.txt and mmbench-extra.txt.",
    ),
    click.Option(
        ["--judge-options"],
        help=f"JSON to merge into {json.dumps(OPTIONS)} of each request; null removes a value.",
    ),
    click.Option(["--judge-concurrency"], type=click.IntRange(min=1), help="Answers judged at a time; 8."),
)


def finish(entries: Sequence[Entry[Record]], texts: Sequence[str], folder: Path, **given: Any) -> Scores:
    """Write the predictions, and ask the judge for marks if the options name one.

    Raises RunError for a judge that is configured incompletely or cannot be reached, and DatasetError for its
    prompt.
    """
    judge, prompts = judge_of(given), given.get("judge_prompt")
    wording = OWN_PROMPTS if prompts is None else read_prompts(prompts)
    answers = {entry.item.id: text or None for entry, text in zip(entries, texts, strict=True)}
    _write(folder / PREDICTIONS, [{"question_id": id_, "answer": text} for id_, text in answers.items()])
    details = _sent([entry.item for entry in entries]) | {
        "without_answer": list(answers.values()).count(None)
    }
    if judge is None:
        return score(entries, {}, details | {"judge": None, "note": "predictions only: no judge was named"})
    messages = {
        entry.item.id: wording.message(
            entry.truth.question, entry.truth.answer, entry.truth.extra_answers, until_last_period(text)
        )
        for entry in entries
        if (text := answers[entry.item.id]) is not None
    }
    verdicts = judged(judge, messages, folder / VERDICTS)
    found = {id_: UNANSWERED_MARK if id_ not in messages else verdicts[id_].mark for id_ in answers}
    marks = {id_: mark for id_, mark in found.items() if mark is not None}
    _write(folder / METRICS, marks)
    prompt = {"name": wording.name, "sha256": wording.sha256}
    return score(entries, marks, details | {"judge": {**describe(judge, verdicts), "prompt": prompt}})


def score(entries: Sequence[Entry[Record]], marks: Mapping[str, int], details: Mapping[str, Any]) -> Scores:
    """Compute the score from marks: the mean of (mark - 1) / 4, in percent, over the questions with a mark.

    marks: by question, 1 to 5, others are clipped. details: further entries of the report.
    """
    values = [percent(marks[entry.item.id]) if entry.item.id in marks else None for entry in entries]
    if all(value is None for value in values):
        return Scores(tuple(values), None, details)
    table = {
        **details,
        "interval_95": _row(entries, values)["interval_95"],
        "if_unmarked_were_0_or_100": [_mean(_filled(values, edge)) for edge in (0.0, 100.0)],
        "by_category": _by(entries, values, lambda truth: truth.category),
        "by_source": _by(entries, values, lambda truth: truth.episode_history.split("/")[0]),
    }
    shares = tuple(None if value is None else value / 100 for value in values)
    return Scores(shares, statistics.fmean(value for value in values if value is not None), table)


def judge_of(given: Mapping[str, Any]) -> Judge | None:
    """Return the judge that the options name, or None. Raises RunError."""
    url, model, variable = (given.get(name) for name in ("judge_url", "judge_model", "judge_key_env"))
    if url is None and model is None:
        if given:
            raise RunError(f"{_names(given)}: name the judge by --judge-url and --judge-model")
        return None
    if url is None or model is None:
        raise RunError("a judge needs --judge-url and --judge-model, both")
    if variable is not None and not os.environ.get(variable, "").strip():
        raise RunError(f"--judge-key-env: the environment variable {variable} is not set")
    key = None if variable is None else os.environ[variable].strip()
    options = dict(OPTIONS) | _options(given.get("judge_options"))
    return Judge(_checked(url), model, key, options, given.get("judge_concurrency", 8))


def _options(given: str | None) -> dict[str, Any]:
    try:
        found = json.loads(given or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or {"model", "messages", "stream", "n"} & set(found):
        raise RunError('--judge-options takes a JSON object of sampling options, as {"max_tokens": 512}')
    return found


def _checked(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise RunError("--judge-url takes an address as http://host:port/v1")
    return url


def _by(
    entries: Sequence[Entry[Record]], values: Sequence[float | None], name: Callable[[Record], str]
) -> dict[str, Any]:
    """Score each group of questions."""
    groups: dict[str, list[int]] = defaultdict(list)
    for at, entry in enumerate(entries):
        groups[name(entry.truth)].append(at)
    return {
        group: _row([entries[at] for at in groups[group]], [values[at] for at in groups[group]])
        for group in sorted(groups)
    }


def _row(entries: Sequence[Entry[Record]], values: Sequence[float | None]) -> dict[str, Any]:
    """Score some questions, with an interval: questions about one episode are drawn together."""
    episodes: dict[str, list[float]] = defaultdict(list)
    for entry, value in zip(entries, values, strict=True):
        if value is not None:
            episodes[entry.truth.episode_history].append(value)
    marked = [value for value in values if value is not None]
    return {
        "questions": len(values),
        "marked": len(marked),
        "score": _mean(marked) if marked else None,
        "interval_95": [round(edge, 2) for edge in interval(list(episodes.values()))] if marked else None,
    }


def _sent(items: Sequence[Item]) -> dict[str, Any]:
    """Count what was sent: frames, answer tokens, and items with sensor depth or repeated frames."""
    return {
        "frames": len(items[0].images),
        "answer_tokens": items[0].max_new_tokens,
        "with_sensor_depth": sum(bool(item.depths) for item in items),
        "with_repeated_frames": sum(len(set(item.images)) < len(item.images) for item in items),
    }


def _filled(values: Iterable[float | None], edge: float) -> list[float]:
    return [edge if value is None else value for value in values]


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 2)


def _names(given: Mapping[str, Any]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


OPENEQA = Benchmark(
    "openeqa",
    "OpenEQA EM-EQA: LLM-Match by a judge of yours, else the predictions only.",
    load,
    finish,
    LOAD_OPTIONS,
    FINISH_OPTIONS,
)
