"""The counting questions of VQAv2 as ToSA's release asks and scores them; its number is no VQAv2 accuracy.

Source: the scripts of ToSA's release (arXiv 2506.20066). Its file of questions, count_qa.json, and its table
of number words were not available: `prompt` and `number` follow the scripts, `chosen` is our reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import click
from pydantic import BaseModel

from evals.runners.benchmark import Benchmark
from evals.runners.depth_files import depths_of
from evals.runners.items import DatasetError, Entry, Item, Scores, read_json
from evals.runners.records import check_records
from evals.runners.vqa_answers import NUMBERS
from evals.runners.vqav2 import IMAGES, coco_image, questions_and_annotations
from evals.runners.vqav2 import LOAD_OPTIONS as VQAV2_OPTIONS

MAX_NEW_TOKENS = 1000
LOAD_OPTIONS = (
    *VQAV2_OPTIONS,
    click.Option(
        ["--count-qa"],
        type=click.Path(path_type=Path),
        help="count_qa.json of the release, for those who have it.",
    ),
)


class Count(BaseModel):
    """One question about a number and its one answer, as count_qa.json has them."""

    image_id: int
    question: str
    answer: str


def load(
    data: Path, images: Path | None = None, depths: Path | None = None, count_qa: Path | None = None
) -> list[Entry[Count]]:
    """Choose the counting questions of the official files, or read `count_qa`. Raises DatasetError."""
    counts = chosen(data) if count_qa is None else _read(count_qa)
    if not counts:
        raise DatasetError(f"{data} has no question whose type begins with «how many» and answer is a number")
    folder = images or data / IMAGES
    paths = {count.image_id: coco_image(folder, count.image_id) for count in counts.values()}
    maps = depths_of(paths.values(), depths)
    return [_entry(id_, count, paths[count.image_id], maps) for id_, count in counts.items()]


def chosen(data: Path) -> dict[str, Count]:
    """Choose the questions whose type begins with "how many" and whose answer is a number.

    The release says of its questions only that they are about counts, on val2014, with one answer each. That
    answer is taken to be the official multiple_choice_answer, the most frequent one.
    """
    return {
        str(question.question_id): Count(
            image_id=question.image_id, question=question.question, answer=truth.multiple_choice_answer
        )
        for question, truth in questions_and_annotations(data)
        if truth.question_type.startswith("how many") and truth.answer_type == "number"
    }


def prompt(question: str) -> str:
    """Return the release's prompt, with its quotes and line ends."""
    return f"'{question}' Answer the question using a single word or phrase. \n\n"


def score(entries: Sequence[Entry[Count]], texts: Sequence[str]) -> Scores:
    """Return the share of right numbers in percent."""
    pairs = zip(entries, texts, strict=True)
    values = [float(number(text) == entry.truth.answer.lower()) for entry, text in pairs]
    return Scores(tuple(values), round(100 * fmean(values), 2))


def number(text: str) -> str:
    """Truncate an answer at its first period and write a number word as digits, for an exact match.

    The number words are those of VQAv2's own script, none to ten.
    """
    start = text.split(".")[0].strip().lower()
    return NUMBERS.get(start, start)


def finish(entries: Sequence[Entry[Count]], texts: Sequence[str], folder: Path) -> Scores:
    """Write questions and answers in the release's format, and score."""
    results = [
        {
            "img_path": f"{IMAGES}/{entry.item.images[0].name}",
            "question": entry.truth.question,
            "response": number(text),
            "answer": entry.truth.answer,
        }
        for entry, text in zip(entries, texts, strict=True)
    ]
    (folder / "count_results.json").write_text(json.dumps(results, indent=1) + "\n")
    return score(entries, texts)


def _read(path: Path) -> dict[str, Count]:
    return {str(at): count for at, count in enumerate(check_records(path, read_json(path), list[Count]))}


def _entry(id_: str, count: Count, image: Path, maps: Mapping[Path, tuple[Path, ...]]) -> Entry[Count]:
    item = Item(id_, prompt(count.question), (image,), maps[image], max_new_tokens=MAX_NEW_TOKENS)
    return Entry(item, count)


VQAV2_COUNTING = Benchmark(
    name="vqav2-counting",
    about="VQAv2's counting questions, asked and scored as ToSA's release does.",
    load=load,
    finish=finish,
    load_options=LOAD_OPTIONS,
)
