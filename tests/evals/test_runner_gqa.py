"""GQA on a made-up sample in the official format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.runners import gqa
from evals.runners.gqa import PREDICTIONS
from evals.runners.items import DatasetError, check_items

DATA = Path(__file__).parent / "data" / "gqa"
TEXTS = ["Yes.", "Red", "light blue", "do", ""]


def test_the_sample_is_asked_as_the_official_file_says() -> None:
    entries = gqa.load(DATA)
    check_items([entry.item for entry in entries])
    assert [entry.item.id for entry in entries] == ["20001", "20002", "20003", "20004", "20005"]  # balanced
    item = entries[0].item
    assert item.question == "Is the cube red?\nAnswer the question using a single word or phrase."
    assert (item.images, item.max_new_tokens) == ((DATA / "images" / "n1.jpg",), 16)
    (as_released, *_) = gqa.load(DATA, "tosa")
    assert as_released.item.question == (
        "'Is the cube red?' Answer the question using a single word or phrase. \n\n"
    )
    assert as_released.item.max_new_tokens == 1000


def test_accuracy_by_type() -> None:
    """Right are yes and red, 2 of 5; the release also counts do, a part of door: 3 of 5."""
    scores = gqa.score(gqa.load(DATA), TEXTS)
    assert (scores.values, scores.overall) == ((1, 1, 0, 0, 0), 40.0)
    assert scores.table == {
        # color, of 2: blue comes 0 times for 1, so 1; furniture, of 1: door too; (2 x 1 + 1 x 1) / 3 / 100
        "distribution": 0.01,
        "as_tosa_counts": 60.0,
        "binary_open": {"binary": 50.0, "open": 33.33},  # 1 of 2 that verify, 1 of 3 that query
        "structural": {"query": 33.33, "verify": 50.0},
        "semantic": {"attr": 66.67, "obj": 0.0, "rel": 0.0},
        "detailed": {"directWhich": 50.0, "existC": 0.0, "relS": 0.0, "verify": 100.0},
        # `exist` and `query: name` are no steps: 1 has the lamp, 3 has the box on the floor, 2 the others
        "steps": {"01": 0.0, "02": 66.67, "03": 0.0},
        "words": {"04": 50.0, "05": 50.0, "08": 0.0},
    }


def test_the_predictions_file_is_the_official_one(tmp_path: Path) -> None:
    assert gqa.finish(gqa.load(DATA), TEXTS, tmp_path).overall == 40.0
    predictions = json.loads((tmp_path / PREDICTIONS).read_text())
    assert predictions[0] == {"questionId": "20001", "prediction": "yes"}
    assert [one["prediction"] for one in predictions] == ["yes", "red", "light blue", "do", ""]


@pytest.mark.parametrize(
    ("text", "answer", "official", "release"),
    [
        ("yes", "yes", True, True),
        ("Yes", "yes", True, True),
        ("yes.", "yes", True, True),
        ("yes, it is", "yes", False, False),
        ("yes. It is", "yes", False, True),  # cut at the first period
        ("table", "coffee table", False, True),  # a part of the answer
        ("coffee table", "table", False, False),
        ("", "yes", False, False),
    ],
)
def test_what_is_right(text: str, answer: str, official: bool, release: bool) -> None:
    assert (gqa.prediction(text) == answer) is official
    assert gqa.is_right_for_tosa(text, answer) is release


def test_no_groups_no_distribution() -> None:
    (entry, *_) = gqa.load(DATA)
    assert gqa.distribution([entry.truth], ["yes"]) is None


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / gqa.QUESTIONS
    found = json.loads((DATA / gqa.QUESTIONS).read_text())
    file.write_text(json.dumps({"20006": found["20006"]}))
    with pytest.raises(DatasetError, match="no balanced question"):
        gqa.load(tmp_path)
    del found["20002"]["answer"]
    file.write_text(json.dumps(found))
    with pytest.raises(DatasetError, match=r"entry 20002\.answer"):
        gqa.load(tmp_path)
    file.write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        gqa.load(tmp_path)
