"""GQA, test-dev balanced: its official file, its exact match by type.

Source: Hudson and Manning, GQA, CVPR 2019; scores as in the official eval.py, those that need nothing but the
questions: its consistency, validity, plausibility and grounding need more answers or more files.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

import click
from pydantic import BaseModel

from evals.runners.benchmark import Benchmark
from evals.runners.depth_files import DEPTHS_OPTION, depths_of
from evals.runners.items import DatasetError, Entry, Item, Scores, read_json
from evals.runners.records import check_records
from evals.runners.vqav2 import SUFFIX, percents
from evals.runners.vqav2_counting import MAX_NEW_TOKENS, prompt

QUESTIONS = "testdev_balanced_questions.json"
PREDICTIONS = "testdev_balanced_predictions.json"
IMAGES = "images"
NO_STEP = ("exist", "query: name", "choose name")
"""Operations that do not count as a step of reasoning."""


PromptStyle = Literal["official", "tosa"]
"""How questions are asked: with LLaVA's suffix, or as ToSA's release does."""
LOAD_OPTIONS = (
    click.Option(
        ["--setting"],
        type=click.Choice(get_args(PromptStyle)),
        help="Prompt of the official evaluation or of ToSA's release; official.",
    ),
    click.Option(["--images"], type=click.Path(path_type=Path), help=f"GQA's images; DATA/{IMAGES}."),
    DEPTHS_OPTION,
)


class Operation(BaseModel):
    """One step of a question's program."""

    operation: str
    argument: str


class Types(BaseModel):
    """The kinds of a question."""

    structural: str
    semantic: str
    detailed: str


class Question(BaseModel):
    """One record of the official file, as far as it is used."""

    imageId: str
    question: str
    answer: str
    types: Types
    semantic: list[Operation]
    groups: dict[str, str | None]
    isBalanced: bool = True


def load(
    data: Path, setting: PromptStyle = "official", images: Path | None = None, depths: Path | None = None
) -> list[Entry[Question]]:
    """Read the balanced questions of `data`. Raises DatasetError."""
    path = data / QUESTIONS
    found = check_records(path, read_json(path), dict[str, Question])
    questions = {id_: question for id_, question in found.items() if question.isBalanced}
    if not questions:
        raise DatasetError(f"{path} has no balanced question: expected the official file of that name")
    folder = images or data / IMAGES
    paths = {question.imageId: folder / f"{question.imageId}.jpg" for question in questions.values()}
    maps = depths_of(paths.values(), depths)
    return [
        Entry(_item(id_, question, setting, paths[question.imageId], maps), question)
        for id_, question in questions.items()
    ]


def score(entries: Sequence[Entry[Question]], texts: Sequence[str]) -> Scores:
    """Return the official accuracy in percent: overall, by type, by number of steps and of words."""
    questions = [entry.truth for entry in entries]
    pairs = list(zip(questions, texts, strict=True))
    values = [float(prediction(text) == one.answer) for one, text in pairs]
    kinds = {
        "binary_open": ["open" if one.types.structural == "query" else "binary" for one in questions],
        "structural": [one.types.structural for one in questions],
        "semantic": [one.types.semantic for one in questions],
        "detailed": [one.types.detailed for one in questions],
        "steps": [f"{steps(one):02d}" for one in questions],
        "words": [f"{len(one.question.split()):02d}" for one in questions],
    }
    table = {
        "distribution": distribution(questions, texts),
        "as_tosa_counts": round(100 * fmean(is_right_for_tosa(text, one.answer) for one, text in pairs), 2),
        **{name: percents(of, values) for name, of in kinds.items()},
    }
    return Scores(tuple(values), round(100 * fmean(values), 2), table)


def prediction(text: str) -> str:
    """Write an answer as the official predictions file has them.

    The official script compares strings as they are, and all true answers are in lower case. A period at the
    end goes, too, as in LLaVA's conversion for that script.
    """
    return text.strip().rstrip(".").lower()


def is_right_for_tosa(text: str, answer: str) -> bool:
    """Whether ToSA's release counts an answer as right: up to its first period, it is part of the true one.

    An empty answer, which is part of every other, is wrong here.
    """
    start = text.split(".")[0].lower()
    return bool(start) and start in answer.lower()


def steps(question: Question) -> int:
    """Count the steps of reasoning, without the last, which only asks."""
    operations = [f"{one.operation}: {one.argument}" for one in question.semantic]
    return sum(not any(excluded in one for excluded in NO_STEP) for one in operations)


def distribution(questions: Sequence[Question], texts: Sequence[str]) -> float | None:
    """Compare how often each answer comes in its group with the truth: mean chi square / 100.

    Lower is better; None if no question is in a group.
    """
    true: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    for one, text in zip(questions, texts, strict=True):
        group = one.groups.get("global")
        if group is not None:
            true[group][one.answer] += 1
            predicted[group][prediction(text)] += 1
    if not true:
        return None
    sizes = {group: counts.total() for group, counts in true.items()}
    chi = {
        group: sum((predicted[group][answer] - n) ** 2 / n for answer, n in counts.items())
        for group, counts in true.items()
    }
    return round(sum(chi[group] * sizes[group] for group in true) / sum(sizes.values()) / 100, 4)


def finish(entries: Sequence[Entry[Question]], texts: Sequence[str], folder: Path) -> Scores:
    """Write the official predictions file, and score."""
    predictions = [
        {"questionId": entry.item.id, "prediction": prediction(text)}
        for entry, text in zip(entries, texts, strict=True)
    ]
    (folder / PREDICTIONS).write_text(json.dumps(predictions) + "\n")
    return score(entries, texts)


def _item(
    id_: str, question: Question, setting: PromptStyle, image: Path, maps: Mapping[Path, tuple[Path, ...]]
) -> Item:
    if setting == "tosa":
        return Item(id_, prompt(question.question), (image,), maps[image], max_new_tokens=MAX_NEW_TOKENS)
    return Item(id_, f"{question.question}\n{SUFFIX}", (image,), maps[image])


GQA = Benchmark(
    name="gqa",
    about="GQA, test-dev balanced: official exact match, by type.",
    load=load,
    finish=finish,
    load_options=LOAD_OPTIONS,
)
