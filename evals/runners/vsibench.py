"""VSI-Bench: spatial questions about frames of room videos, answered by letter or by number.

Source: Yang et al., Thinking in Space, CVPR 2025; prompts as in lmms_eval/tasks/vsibench of
vision-x-nyu/thinking-in-space, files as in the data set nyu-visionx/VSI-Bench (Apache-2.0).
"""

from __future__ import annotations

import importlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel, ConfigDict, model_validator

from evals.runners.benchmark import Benchmark
from evals.runners.exact_match import percent
from evals.runners.frames import Frames, scene_frames
from evals.runners.items import DatasetError, Entry, Item, Scores
from evals.runners.records import check_records, read_json_lines
from evals.runners.vsibench_score import (
    LETTER_TYPES,
    TASKS,
    TYPES,
    letter_score,
    number_score,
    overall_interval,
    task_means,
)

BEFORE = "These are frames of a video."
BY_LETTER = "Answer with the option's letter from the given choices directly."
BY_NUMBER = "Please answer the question using a single word or phrase."
LETTER_METRIC, NUMBER_METRIC = "accuracy", "MRA:.5:.95:.05"  # the official names


class Question(BaseModel):
    """One record of the official file."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: int | str
    dataset: Literal["arkitscenes", "scannet", "scannetpp"]
    scene_name: str
    question_type: str
    question: str
    ground_truth: str
    options: list[str] | None = None

    @property
    def by_letter(self) -> bool:
        """Whether the answer is a letter, not a number."""
        return self.question_type in LETTER_TYPES

    @property
    def scene(self) -> str:
        """The folder of the scene's frames."""
        return f"{self.dataset}/{self.scene_name}"

    @model_validator(mode="after")
    def _can_be_scored(self) -> Question:
        if self.question_type not in TYPES:
            raise ValueError(f"unknown question type {self.question_type}, known are {', '.join(TYPES)}")
        if self.by_letter and not self.options:
            raise ValueError("a question by letter needs options")
        if not self.by_letter and not _is_positive(self.ground_truth):
            raise ValueError(f"the true number must be above 0, not {self.ground_truth}")
        return self


def load(
    data: Path, file: str = "test.jsonl", scenes: Path | None = None, frames: int = 32
) -> list[Entry[Question]]:
    """Read the questions and choose `frames` of every scene: `scenes`/<dataset>/<scene>/*.jpg (data/frames).

    Raises DatasetError.
    """
    path = data / file
    found = _read_parquet(path) if path.suffix == ".parquet" else read_json_lines(path)
    questions = check_records(path, found, list[Question])
    asked = dict.fromkeys(question.scene for question in questions)
    seen = scene_frames(scenes or data / "frames", asked, frames)
    return [Entry(_item(question, seen[question.scene]), question) for question in questions]


def prompt(question: Question) -> str:
    """Write the official prompt."""
    if not question.by_letter:
        return "\n".join((BEFORE, question.question, BY_NUMBER))
    return "\n".join((BEFORE, question.question, "Options:", *(question.options or ()), BY_LETTER))


def score_one(question: Question, text: str) -> float:
    """Score one answer in [0, 1]."""
    if question.by_letter:
        return letter_score(text, question.ground_truth)
    return number_score(text, float(question.ground_truth))


def score(entries: Sequence[Entry[Question]], texts: Sequence[str]) -> Scores:
    """Compute the official mean of eight tasks in percent; a task not asked is left out and named."""
    asked = [entry.truth for entry in entries]
    values = [score_one(one, text) for one, text in zip(asked, texts, strict=True)]
    types = [one.question_type for one in asked]
    by_task, overall = task_means(types, values)
    interval = overall_interval(types, values, [one.scene for one in asked])
    by_type: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(types, values, strict=True):
        by_type[kind].append(value)
    table = {
        "overall_interval_95": [round(100 * edge, 4) for edge in interval],
        "by_task": {task: round(100 * mean, 4) for task, mean in by_task.items()},
        "by_type": {kind: {"questions": len(v), "score": percent(v)} for kind, v in sorted(by_type.items())},
        "tasks_not_asked": [task for task in TASKS if task not in by_task],
    }
    return Scores(tuple(values), 100 * overall, table)


def finish(entries: Sequence[Entry[Question]], texts: Sequence[str], folder: Path) -> Scores:
    """Write predictions.jsonl, every record with its answer and score, as the official code has it."""
    pairs = zip(entries, texts, strict=True)
    lines = [json.dumps(_prediction(entry.truth, text)) + "\n" for entry, text in pairs]
    (folder / "predictions.jsonl").write_text("".join(lines))
    return score(entries, texts)


def _item(question: Question, frames: Frames) -> Item:
    return Item(str(question.id), prompt(question), frames.images)


def _prediction(question: Question, text: str) -> Mapping[str, Any]:
    metric = LETTER_METRIC if question.by_letter else NUMBER_METRIC
    return {**question.model_dump(), "prediction": text, metric: score_one(question, text)}


def _is_positive(number: str) -> bool:
    try:
        return 0 < float(number) < math.inf
    except ValueError:
        return False


def _read_parquet(path: Path) -> list[Any]:
    try:
        return importlib.import_module("pyarrow.parquet").read_table(path).to_pylist()
    except ImportError:
        raise DatasetError(
            f"{path}: reading Parquet needs the package pyarrow; test.jsonl beside it needs none"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from None


VSIBENCH = Benchmark(
    name="vsibench",
    about="VSI-Bench: letters by exact match, numbers by mean relative accuracy, mean of eight tasks.",
    load=load,
    finish=finish,
    load_options=(
        click.Option(["--file"], help="File of questions in DATA; test.jsonl."),
        click.Option(
            ["--scenes"],
            type=click.Path(path_type=Path),
            help="Folder of <dataset>/<scene>/*.jpg; DATA/frames.",
        ),
        click.Option(["--frames"], type=click.IntRange(min=1), help="Frames of a scene, evenly spaced; 32."),
    ),
)
