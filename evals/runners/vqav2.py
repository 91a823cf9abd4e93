"""VQAv2, validation split: its official files, its soft accuracy.

Source: Goyal et al., Making the V in VQA Matter, CVPR 2017; files and evaluation as in GT-Vision-Lab/VQA.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
from pydantic import BaseModel, Field

from evals.runners.benchmark import Benchmark
from evals.runners.depth_files import DEPTHS_OPTION, depths_of
from evals.runners.items import DatasetError, Entry, Item, Scores, read_json
from evals.runners.records import check_records
from evals.runners.vqa_answers import soft_accuracy

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
IMAGES = "val2014"
RESULTS = "v2_OpenEnded_mscoco_val2014_tosa-vqa_results.json"
SUFFIX = "Answer the question using a single word or phrase."
"""The suffix of LLaVA's and lmms-eval's runs; the official protocol asks for none."""
LOAD_OPTIONS = (
    click.Option(["--images"], type=click.Path(path_type=Path), help=f"COCO's val2014; DATA/{IMAGES}."),
    DEPTHS_OPTION,
)


class Question(BaseModel):
    """One record of the official questions, as far as it is used."""

    question_id: int
    image_id: int
    question: str


class Answered(BaseModel):
    """The answer of one annotator."""

    answer: str


class Annotation(BaseModel):
    """One record of the official annotations, as far as it is used."""

    question_id: int
    question_type: str
    answer_type: str
    multiple_choice_answer: str
    answers: list[Answered] = Field(min_length=1)


def load(data: Path, images: Path | None = None, depths: Path | None = None) -> list[Entry[Annotation]]:
    """Read the official questions and annotations of val2014, which lie in `data`. Raises DatasetError."""
    pairs = questions_and_annotations(data)
    paths = {
        question.image_id: coco_image(images or data / IMAGES, question.image_id) for question, _ in pairs
    }
    maps = depths_of(paths.values(), depths)
    return [
        Entry(
            Item(
                id=str(question.question_id),
                question=f"{question.question}\n{SUFFIX}",
                images=(paths[question.image_id],),
                depths=maps[paths[question.image_id]],
            ),
            truth,
        )
        for question, truth in pairs
    ]


def questions_and_annotations(data: Path) -> list[tuple[Question, Annotation]]:
    """Pair the two official files, in the order of the questions. Raises DatasetError."""
    questions = _records(data / QUESTIONS, "questions", list[Question])
    found = _records(data / ANNOTATIONS, "annotations", list[Annotation])
    annotations = {annotation.question_id: annotation for annotation in found}
    without = [one.question_id for one in questions if one.question_id not in annotations]
    if without:
        of = f"{len(without)} of {len(questions)} questions"
        raise DatasetError(f"{data / ANNOTATIONS} lacks {of}, the first is {without[0]}")
    return [(question, annotations[question.question_id]) for question in questions]


def coco_image(folder: Path, image_id: int) -> Path:
    """Name the file of an image as COCO does."""
    return folder / f"COCO_val2014_{image_id:012d}.jpg"


def score(entries: Sequence[Entry[Annotation]], texts: Sequence[str]) -> Scores:
    """Return the official accuracy in percent: overall, by type of answer, by type of question."""
    values = [
        soft_accuracy(text, [one.answer for one in entry.truth.answers])
        for entry, text in zip(entries, texts, strict=True)
    ]
    truths = [entry.truth for entry in entries]
    table = {
        "per_answer_type": percents([truth.answer_type for truth in truths], values),
        "per_question_type": percents([truth.question_type for truth in truths], values),
    }
    return Scores(tuple(values), round(100 * fmean(values), 2), table)


def percents(kinds: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Average by kind, in percent with two decimals as the official scripts print."""
    of: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(kinds, values, strict=True):
        of[kind].append(value)
    return {kind: round(100 * fmean(of[kind]), 2) for kind in sorted(of)}


def finish(entries: Sequence[Entry[Annotation]], texts: Sequence[str], folder: Path) -> Scores:
    """Write the official results file, and score. A question without an answer is answered with ""."""
    results = [
        {"question_id": entry.truth.question_id, "answer": text}
        for entry, text in zip(entries, texts, strict=True)
    ]
    (folder / RESULTS).write_text(json.dumps(results) + "\n")
    return score(entries, texts)


def _records(path: Path, name: str, kind: Any) -> Any:
    found = read_json(path)
    if not isinstance(found, dict) or name not in found:
        raise DatasetError(f"{path} has no list named {name}: expected the official file of that name")
    return check_records(path, found[name], kind)


VQAV2 = Benchmark(
    name="vqav2",
    about="VQAv2, validation split: official soft accuracy.",
    load=load,
    finish=finish,
    load_options=LOAD_OPTIONS,
)
