"""The JSON of a measurement on walks: shares, accuracy, paired differences and times of every setting."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.intervals import Scores, interval, paired_interval
from evals.rooms.score import blind_guess, is_right
from evals.rooms.walks.evaluate import Measured
from evals.rooms.walks.settings import GEOMETRIC, Setting
from evals.rooms.walks.splits import WalkExample
from service.roomqa.questions import Question

TOSA_ALONE, DIVERSE = "tosa per frame", "diverse"
Found = Mapping[Setting, Measured]


def rows(split: Sequence[WalkExample], found: Found, words: str, frame_ms: Mapping[str, float]) -> list[Any]:
    """Describe every setting that was measured."""
    right = {setting: rights(split, measured, words) for setting, measured in found.items()}
    described = [_row(split, setting, found, right, words, frame_ms) for setting in found]
    _equal_time(described, found, right)
    return described


def rights(split: Sequence[WalkExample], measured: Measured, words: str) -> Scores:
    """Mark every answer, a list for each walk."""
    return [
        [
            float(is_right(answer, question.answer))
            for answer, question in zip(answers, asked(example, words), strict=True)
        ]
        for answers, example in zip(measured.answers, split, strict=True)
    ]


def asked(example: WalkExample, words: str) -> list[Question]:
    """Return the questions that were asked of a walk."""
    return [one for one in example.questions if words == "walks" or one.plain is not None]


def asked_types(split: Sequence[WalkExample], words: str) -> dict[str, Any]:
    """Count the questions by type, and say what is right without looking."""
    every = [one for example in split for one in asked(example, words)]
    kinds = sorted({one.type for one in every})
    return {
        "words": words,
        "questions": len(every),
        "types": {kind: sum(one.type == kind for one in every) for kind in kinds},
        "blind_guess": {kind: round(share, 4) for kind, share in blind_guess(every).items()},
    }


def _row(
    split: Sequence[WalkExample],
    setting: Setting,
    found: Found,
    right: Mapping[Setting, Scores],
    words: str,
    frame_ms: Mapping[str, float],
) -> dict[str, Any]:
    measured = found[setting]
    kinds = sorted({one.type for example in split for one in asked(example, words)})
    row: dict[str, Any] = {
        "name": setting.name,
        "method": setting.method,
        "frames": setting.frames,
        "budget": setting.budget,
        "inside": setting.inside,
        "geometry": setting.geometry,
        "tokens": [min(measured.tokens), max(measured.tokens)],
        **{name: with_interval(getattr(measured, name)) for name in ("things", "surface", "twice")},
        "accuracy": {
            "overall": _rounded(right[setting]),
            **{kind: _rounded(_only(split, right[setting], kind, words)) for kind in kinds},
        },
        "ms": _times(setting, measured, frame_ms),
    }
    if measured.alike:
        row["alike"] = with_interval(measured.alike)
    for name, other in _others(setting).items():
        if other in found and other != setting:
            row[name] = _minus(split, found, right, setting, other, words)
    return row


def _others(setting: Setting) -> dict[str, Setting]:
    """Return what a setting is compared with."""
    if setting.geometry != "true":
        plain = replace(setting, geometry="true")
        return {"minus_true": plain, "minus_diverse": replace(plain, method=DIVERSE)}
    return {
        "minus_tosa": replace(setting, method=TOSA_ALONE, inside="none"),
        "minus_diverse": replace(setting, method=DIVERSE, inside="none"),
        "minus_half_the_frames": replace(setting, frames=setting.frames // 2),
    }


def _minus(
    split: Sequence[WalkExample],
    found: Found,
    right: Mapping[Setting, Scores],
    one: Setting,
    other: Setting,
    words: str,
) -> dict[str, list[float]]:
    mine, theirs = found[one], found[other]
    count = [_only(split, right[each], "count", words) for each in (one, other)]
    return {
        "things": _difference(_single(mine.things), _single(theirs.things)),
        "surface": _difference(_single(mine.surface), _single(theirs.surface)),
        "overall": _difference(right[one], right[other]),
        "count": _difference(*count),
    }


def _times(setting: Setting, measured: Measured, frame_ms: Mapping[str, float]) -> dict[str, float]:
    """Return medians in milliseconds; frames that are kept on disk cost what encoding one does, times all."""
    encode = statistics.median(measured.encode_ms)
    if setting.inside in frame_ms and "per frame" not in setting.method and "fewer" not in setting.method:
        encode = frame_ms[setting.inside] * len(setting.shown)
    select, answer = statistics.median(measured.select_ms), statistics.median(measured.answer_ms)
    spent = {"encode": encode, "select": select, "answer": answer, "all": encode + select + answer}
    return {name: round(value, 1) for name, value in spent.items()}


def _equal_time(described: list[dict[str, Any]], found: Found, right: Mapping[Setting, Scores]) -> None:
    """Compare each geometric setting with the best one without geometry that takes no longer, any budget."""
    by_name = {setting.name: setting for setting in found}
    plain = [row for row in described if row["method"] not in GEOMETRIC]
    for row in described:
        if row["method"] not in GEOMETRIC or row["geometry"] != "true":
            continue
        within = [one for one in plain if one["ms"]["all"] <= row["ms"]["all"]]
        if not within:
            continue
        best = max(within, key=lambda one: one["accuracy"]["overall"][0])
        mine, theirs = right[by_name[row["name"]]], right[by_name[best["name"]]]
        row["equal_time"] = {"name": best["name"], "overall": _difference(mine, theirs)}


def with_interval(values: Sequence[float]) -> list[float]:
    """Return the mean over walks and the ends of its 95 % interval."""
    return _rounded(_single(values))


def _single(values: Sequence[float]) -> Scores:
    return [[value] for value in values]


def _rounded(scores: Scores) -> list[float]:
    every = [one for own in scores for one in own]
    if not every:
        return []
    return [round(value, 4) for value in (statistics.fmean(every), *interval(scores))]


def _difference(better: Scores, worse: Scores) -> list[float]:
    every = [a - b for one, other in zip(better, worse, strict=True) for a, b in zip(one, other, strict=True)]
    if not every:
        return []
    return [round(value, 4) for value in (statistics.fmean(every), *paired_interval(better, worse))]


def _only(split: Sequence[WalkExample], right: Scores, kind: str, words: str) -> Scores:
    return [
        [mark for mark, one in zip(marks, asked(example, words), strict=True) if one.type == kind]
        for marks, example in zip(right, split, strict=True)
    ]
