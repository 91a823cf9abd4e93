"""ScanQA, SQA3D and VSI-Bench on their samples, from the command line through room-tiny to the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from evals.runners import __main__ as command_line
from evals.runners.answerers import EngineAnswerer
from evals.runners.scanqa import SCANQA
from evals.runners.sqa3d import SQA3D
from evals.runners.vsibench import VSIBENCH

DATA = Path(__file__).parent / "data"
BENCHMARKS = {benchmark.name: benchmark for benchmark in (SCANQA, SQA3D, VSIBENCH)}


class Kept:
    """An answerer that one command does not close, for the next to use."""

    def __init__(self, engine: EngineAnswerer) -> None:
        self.name, self.settings, self.answer = engine.name, engine.settings, engine.answer

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineAnswerer]:
    answerer = EngineAnswerer("room-tiny", {"method": "tosa", "keep_ratio": 0.25})
    yield answerer
    answerer.close()


@pytest.fixture
def app(engine: EngineAnswerer, monkeypatch: pytest.MonkeyPatch) -> click.Group:
    monkeypatch.setattr(command_line, "answerer_of", lambda given, spec: Kept(engine))
    return command_line.command_line(BENCHMARKS.values())


def asked(app: click.Group, name: str, out: Path, *more: str) -> dict[str, Any]:
    """Run the command and return its report."""
    arguments = [
        name,
        "--data",
        str(DATA / name),
        "--out",
        str(out),
        "--method",
        "tosa",
        "--keep-ratio",
        "0.25",
    ]
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    return json.loads((out / "report.json").read_text())


def answers(out: Path) -> list[dict[str, Any]]:
    """Return the answers that were kept, without the line about the run."""
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("name", "questions", "depth", "predictions"),
    [
        ("scanqa", 6, "client", "predictions.json"),
        ("sqa3d", 4, "estimate", "predictions.json"),  # nothing measured in its sample
        ("vsibench", 8, "estimate", "predictions.jsonl"),
    ],
)
def test_every_question_is_answered_once_and_reported(
    app: click.Group, tmp_path: Path, name: str, questions: int, depth: str, predictions: str
) -> None:
    arguments = ("--frames", "1", "--limit", str(questions))
    report = asked(app, name, tmp_path, *arguments)
    assert (report["benchmark"], report["questions"], report["unanswered"]) == (name, questions, {})
    assert 0 <= report["overall"] <= 100
    assert report["tokens"]["visual_out"] == report["tokens"]["visual_in"] / 4
    kept = answers(tmp_path)
    assert {answer["report"]["depth"]["source"] for answer in kept} == {depth}
    assert (tmp_path / predictions).stat().st_size > 0

    again = asked(app, name, tmp_path, *arguments)
    assert answers(tmp_path) == kept
    assert again["scores"] == report["scores"]


def test_the_rule_of_the_overall_score_is_an_option(app: click.Group, tmp_path: Path) -> None:
    report = asked(app, "sqa3d", tmp_path, "--match", "refined", "--limit", "2", "--frames", "1")
    assert (report["scores"]["match"], report["questions"]) == ("refined", 2)
    assert report["overall"] == report["scores"]["em_refined"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scanqa", "--data", str(DATA / "sqa3d")], "ScanQA_v1.0_val.json"),
        (["scanqa", "--data", str(DATA / "scanqa"), "--scans", str(DATA)], "2 of 2 scenes have no frames"),
        (["vsibench", "--data", str(DATA / "vsibench"), "--file", "none.jsonl"], "none.jsonl"),
    ],
)
def test_wrong_data_is_one_clear_line(
    app: click.Group, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert said in " ".join(done.output.split())
    assert isinstance(done.exception, SystemExit)
