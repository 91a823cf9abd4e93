"""SQA3D: questions asked in a situation within a ScanNet scene, exact match by question type.

Source: Ma et al., SQA3D, ICLR 2023; of SilongYong/SQA3D the files as in assets/dataset.md, types of question
as in MCAN/load_data.py, cleaning and predictions as in LLM/eval_sqa3d_llm.py. The data are CC BY 4.0; ScanNet
has terms of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from evals.runners.benchmark import Benchmark
from evals.runners.exact_match import MATCH_OPTIONS, Match, match_scores
from evals.runners.frames import SCANNET_OPTIONS, Frames, scannet_frames
from evals.runners.items import DatasetError, Entry, Item, Scores, read_json
from evals.runners.records import check_records

QUESTIONS = "v1_balanced_questions_test_scannetv2.json"
ANNOTATIONS = "v1_balanced_sqa_annotations_test_scannetv2.json"
SUFFIX = "Answer the question using a single word or phrase."
TYPES = ("what", "is", "how", "can", "which")


class Question(BaseModel):
    """One record of the file of questions."""

    question_id: int
    scene_id: str
    situation: str
    question: str = Field(pattern=r"\w")


class Reference(BaseModel):
    """One answer of an annotation."""

    answer: str


class Annotation(BaseModel):
    """One record of the file of annotations.

    position and rotation stay unchanged: the official script finds predictions by a hash of them.
    """

    question_id: int
    answers: list[Reference] = Field(min_length=1)
    position: dict[str, Any]
    rotation: dict[str, Any]


class QuestionFile(BaseModel):
    """The file of questions."""

    questions: list[Question]


class AnnotationFile(BaseModel):
    """The file of annotations."""

    annotations: list[Annotation]


@dataclass(frozen=True)
class Truth:
    """A question with its annotation."""

    question: Question
    annotation: Annotation

    @property
    def answer(self) -> str:
        """Return the first answer, which the score uses."""
        return self.annotation.answers[0].answer


def load(data: Path, scans: Path | None = None, frames: int = 12) -> list[Entry[Truth]]:
    """Read the test split and choose `frames` of every scene below `scans` (data/scans).

    Raises DatasetError.
    """
    asked = check_records(data / QUESTIONS, read_json(data / QUESTIONS), QuestionFile).questions
    known = check_records(data / ANNOTATIONS, read_json(data / ANNOTATIONS), AnnotationFile).annotations
    annotations = {annotation.question_id: annotation for annotation in known}
    lacking = [question.question_id for question in asked if question.question_id not in annotations]
    if lacking:
        raise DatasetError(
            f"{data / ANNOTATIONS} has no answer to {len(lacking)} of {len(asked)} questions, "
            f"the first is {lacking[0]}"
        )
    seen = scannet_frames(scans or data / "scans", dict.fromkeys(one.scene_id for one in asked), frames)
    return [Entry(_item(one, seen[one.scene_id]), Truth(one, annotations[one.question_id])) for one in asked]


def question_type(question: str) -> str:
    """Classify a question by its first word, as the official loader: what, is, how, can, which, or other."""
    bare = question.lower().translate(str.maketrans("", "", ",.?")).replace("'s", " 's")
    first = bare.split()[0]
    return first if first in TYPES else "other"


def score(entries: Sequence[Entry[Truth]], texts: Sequence[str], match: Match = "cleaned") -> Scores:
    """Compute the exact match in percent, overall and by type; free answers are compared `cleaned`."""
    asked = [entry.truth for entry in entries]
    types = [question_type(one.question.question) for one in asked]
    return match_scores(texts, [[one.answer] for one in asked], types, match)


def finish(
    entries: Sequence[Entry[Truth]], texts: Sequence[str], folder: Path, match: Match = "cleaned"
) -> Scores:
    """Write predictions.json as eval_sqa3d_llm.py reads it, with the question's id besides, and score."""
    predictions = [_prediction(entry.truth, text) for entry, text in zip(entries, texts, strict=True)]
    (folder / "predictions.json").write_text(json.dumps(predictions, indent=1) + "\n")
    return score(entries, texts, match)


def _item(question: Question, frames: Frames) -> Item:
    prompt = f"{question.situation} {question.question}\n{SUFFIX}"
    return Item(
        str(question.question_id),
        prompt,
        frames.images,
        frames.depths,
        frames.preset,
        geometry=frames.geometry,
    )


def _prediction(truth: Truth, text: str) -> Mapping[str, Any]:
    return {
        "question_id": truth.question.question_id,
        "scene_id": truth.question.scene_id,
        "situation": truth.question.situation,
        "question": truth.question.question,
        "answer": text,
        "agent_rot": truth.annotation.rotation,
        "agent_pos": truth.annotation.position,
    }


SQA3D = Benchmark(
    name="sqa3d",
    about="SQA3D, test split: exact match, overall and by type of question.",
    load=load,
    finish=finish,
    load_options=SCANNET_OPTIONS,
    finish_options=MATCH_OPTIONS,
)
