"""ScanQA: questions about ScanNet scenes, EM@1 over several reference answers.

Source: Azuma et al., ScanQA, CVPR 2022; files, question types and EM@1 as in docs/dataset.md and
scripts/score.py of ATR-DBI/ScanQA. The data are CC BY-NC-SA 3.0, ScanNet's frames have terms of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from evals.runners.benchmark import Benchmark
from evals.runners.exact_match import MATCH_OPTIONS, Match, match_scores
from evals.runners.frames import SCANNET_OPTIONS, Frames, scannet_frames
from evals.runners.items import DatasetError, Entry, Item, Scores, read_json
from evals.runners.records import check_records

FILE = "ScanQA_v1.0_val.json"
SUFFIX = "Answer the question using a single word or phrase."
TYPES: Mapping[str, tuple[str, ...]] = {
    "place": ("Where",),
    "number": ("How many",),
    "color": ("What color", "What is the color"),
    "object nature": ("What shape", "What type", "What kind"),
    "object": ("What is",),
}
"""Words that make a question of a type; the first match counts, `other` if there is none."""


class Question(BaseModel):
    """One record of the official file, as far as it is used."""

    scene_id: str
    question_id: str
    question: str
    answers: list[str] = Field(min_length=1)


def load(data: Path, scans: Path | None = None, frames: int = 12) -> list[Entry[Question]]:
    """Read ScanQA_v1.0_val.json and choose `frames` of every scene below `scans` (data/scans).

    Raises DatasetError.
    """
    path = data / FILE
    found = read_json(path)
    if isinstance(found, list) and any(isinstance(one, dict) and "answers" not in one for one in found):
        raise DatasetError(
            f"{path} has questions without answers: the test splits have none, use the val split"
        )
    questions = check_records(path, found, list[Question])
    scenes = dict.fromkeys(question.scene_id for question in questions)
    seen = scannet_frames(scans or data / "scans", scenes, frames)
    return [Entry(_item(question, seen[question.scene_id]), question) for question in questions]


def question_type(question: str) -> str:
    """Classify a question by the words in it, case-sensitively, as score.py --detailed does."""
    return next((name for name, held in TYPES.items() if any(one in question for one in held)), "other")


def score(entries: Sequence[Entry[Question]], texts: Sequence[str], match: Match = "exact") -> Scores:
    """Compute EM@1 in percent, overall and by type. Official is `exact`: the string is one of the answers."""
    questions = [entry.truth for entry in entries]
    return match_scores(
        texts, [one.answers for one in questions], [question_type(one.question) for one in questions], match
    )


def finish(
    entries: Sequence[Entry[Question]], texts: Sequence[str], folder: Path, match: Match = "exact"
) -> Scores:
    """Write predictions.json as scripts/predict.py does, but no box and one answer for ten; and score."""
    predictions = [
        {"scene_id": entry.truth.scene_id, "question_id": entry.truth.question_id, "answer_top10": [text]}
        for entry, text in zip(entries, texts, strict=True)
    ]
    (folder / "predictions.json").write_text(json.dumps(predictions, indent=1) + "\n")
    return score(entries, texts, match)


def _item(question: Question, frames: Frames) -> Item:
    prompt = f"{question.question}\n{SUFFIX}"
    return Item(
        question.question_id, prompt, frames.images, frames.depths, frames.preset, geometry=frames.geometry
    )


SCANQA = Benchmark(
    name="scanqa",
    about="ScanQA, validation split: EM@1.",
    load=load,
    finish=finish,
    load_options=SCANNET_OPTIONS,
    finish_options=MATCH_OPTIONS,
)
