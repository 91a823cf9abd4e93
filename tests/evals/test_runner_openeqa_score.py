"""OpenEQA: scores by hand, official files, and a run from questions to marks with room-tiny."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from evals.runners.__main__ import command_line
from evals.runners.asking import RunError
from evals.runners.items import Entry, Item, Scores
from evals.runners.openeqa import OPENEQA, judge_of, score
from evals.runners.openeqa_episodes import Record, load
from tests.evals.judges import Reply, completion, judging

DATA = Path(__file__).parent / "data" / "openeqa"
HM3D, SCANNET = "hm3d-v0/000-hm3d-MadeUp00001", "scannet-v0/001-scannet-scene9999_00"


def entry(id_: str, history: str, category: str) -> Entry[Record]:
    return Entry(Item(id_, "?", (Path(history),)), Record("?", "yes", category, id_, history))


ENTRIES = [
    entry("a", HM3D, "object recognition"),
    entry("b", HM3D, "world knowledge"),
    entry("c", SCANNET, "world knowledge"),
]


def test_the_score_is_the_mean_of_mark_less_one_by_four() -> None:
    """Marks 5, 2, 3 are 100, 25, 50: mean 58.33; world knowledge (25 + 50) / 2; HM3D (100 + 25) / 2."""
    scores = score(ENTRIES, {"a": 5, "b": 2, "c": 3}, {})
    assert scores.values == (1.0, 0.25, 0.5)
    assert scores.overall == pytest.approx(175 / 3)
    by_category, by_source = scores.table["by_category"], scores.table["by_source"]
    assert {name: row["score"] for name, row in by_category.items()} == {
        "object recognition": 100,
        "world knowledge": 37.5,
    }
    assert {name: row["score"] for name, row in by_source.items()} == {"hm3d-v0": 62.5, "scannet-v0": 50}
    assert scores.table["interval_95"] == [50.0, 62.5]  # two episodes: all draws lie between their means
    assert by_source["hm3d-v0"]["interval_95"] == [62.5, 62.5]  # one episode: nothing to draw


def test_marks_off_the_scale_are_clipped() -> None:
    """0 and 9 count as 1 and 5: (0 + 100 + 50) / 3."""
    assert score(ENTRIES, {"a": 0, "b": 9, "c": 3}, {}).overall == pytest.approx(50)


def test_a_question_without_a_mark_has_no_score() -> None:
    """Marks 5 and 1: 50 over two; were the third 0 or 100: 100 / 3 and 200 / 3."""
    scores = score(ENTRIES, {"a": 5, "c": 1}, {})
    assert scores.values == (1.0, None, 0.0) and scores.overall == 50
    assert scores.table["if_unmarked_were_0_or_100"] == [33.33, 66.67]
    row = scores.table["by_category"]["world knowledge"]
    assert (row["questions"], row["marked"], row["score"]) == (2, 1, 0.0)
    assert score(ENTRIES, {}, {}).overall is None


@given(st.lists(st.integers(-3, 9), min_size=3, max_size=3))
def test_the_score_is_the_official_scripts(marks: list[int]) -> None:
    official = np.mean(100.0 * (np.clip(np.array(marks), 1, 5) - 1) / 4)
    found = score(ENTRIES, dict(zip("abc", marks, strict=True)), {})
    assert found.overall == pytest.approx(official)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"judge_model": "m"}, "both"),
        ({"judge_url": "http://h/v1"}, "both"),
        ({"judge_concurrency": 3}, "--judge-concurrency: name the judge"),
        ({"judge_url": "h/v1", "judge_model": "m"}, "--judge-url takes"),
        ({"judge_url": "http://", "judge_model": "m"}, "--judge-url takes"),
        ({"judge_url": "http://\0", "judge_model": "m"}, "--judge-url takes"),
        ({"judge_url": "http://h", "judge_model": "m", "judge_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ({"judge_url": "http://h", "judge_model": "m", "judge_options": "[1]"}, "--judge-options"),
        ({"judge_url": "http://h", "judge_model": "m", "judge_options": '{"model": "x"}'}, "--judge-options"),
    ],
)
def test_a_judge_named_by_halves_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said):
        judge_of(told)


def finish(texts: list[str], folder: Path, url: str | None, **more: Any) -> Scores:
    told = {} if url is None else {"judge_url": url, "judge_model": "stub", **more}
    return OPENEQA.finish(load(DATA), texts, folder, **told)


def written(path: Path) -> Any:
    return json.loads(path.read_text())


MARKS = {"What color is the ball?": "5", "Where is the ball?": "Your mark: 2", "What color is the obj": "3"}


def by_question(number: int, body: dict[str, Any]) -> Reply:
    message = body["messages"][0]["content"]
    return completion(next((mark for asked, mark in MARKS.items() if asked in message), "I cannot tell."))


def test_without_a_judge_there_are_predictions_and_no_score(tmp_path: Path) -> None:
    scores = finish(["red", "there. And", "", "no", "run"], tmp_path, None)
    assert [(one["question_id"][-1], one["answer"]) for one in written(tmp_path / "predictions.json")] == [
        *(("1", "red"), ("2", "there. And"), ("3", None), ("4", "no"), ("5", "run"))
    ]
    assert scores.overall is None and set(scores.values) == {None}
    assert scores.table["judge"] is None and "no judge" in scores.table["note"]
    assert scores.table["without_answer"] == 1 and not (tmp_path / "predictions-metrics.json").exists()


def test_a_judge_marks_answers_and_what_it_says_not_has_no_score(tmp_path: Path) -> None:
    """Marks 5, 2, none, none, and 0 for no answer: (100 + 25 + 0) / 3; at best (100 + 25 + 0 + 200) / 5."""
    with judging(by_question) as stub:
        scores = finish(["red", "there. And", "", "no", "run"], tmp_path, stub.url)
    assert sorted(message.splitlines()[-2] for message in stub.messages) == [
        *("Given answer: no", "Given answer: red", "Given answer: run", "Given answer: there.")
    ]
    marks = written(tmp_path / "predictions-metrics.json")
    assert {id_[-1]: mark for id_, mark in marks.items()} == {"1": 5, "2": 2, "3": 0}
    assert scores.values == (1.0, 0.25, 0.0, None, None) and scores.overall == pytest.approx(125 / 3)
    assert scores.table["if_unmarked_were_0_or_100"] == [25.0, 65.0]
    judge = scores.table["judge"]
    assert (judge["model"], judge["says_it_is"]) == ("stub", {"stub-0613": 4})
    assert (judge["marks"], judge["failures"]) == ({"2": 1, "5": 1}, {"no_mark": 2})
    assert judge["prompt"]["name"].startswith("own wording") and judge["url"] == stub.url


def test_the_users_prompt_is_what_the_judge_reads(tmp_path: Path) -> None:
    (tmp_path / "mmbench.txt").write_text("{question}|{answer}|{prediction}")
    (tmp_path / "mmbench-extra.txt").write_text("{question}|{answer}|{extra_answers}|{prediction}")
    with judging(lambda *_: completion("1")) as stub:
        scores = finish(["red", "here", "", "", ""], tmp_path, stub.url, judge_prompt=tmp_path)
    assert sorted(stub.messages) == [
        "What color is the ball?|Red|red",
        "Where is the ball?|In front of the wall|['On the floor', 'Near the wall.']|here",
    ]
    assert scores.table["judge"]["prompt"]["name"] == "user's files"


def test_a_judge_that_ends_the_run_leaves_the_predictions(tmp_path: Path) -> None:
    with judging(lambda *_: (401, "bad key", {})) as stub, pytest.raises(RunError, match="401, bad key"):
        finish(["a"] * 5, tmp_path, stub.url)
    assert len(written(tmp_path / "predictions.json")) == 5


def test_from_the_command_line_with_room_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of ScanNet's three questions, two frames each: sensor depth steers; marks 3 and none."""
    app = command_line([OPENEQA])
    monkeypatch.setenv("JUDGE_KEY", "secret")
    asked = ["openeqa", "--data", str(DATA), "--out", str(tmp_path), "--source", "scannet-v0", "--limit", "2"]
    model = ["--depth-model", "none", "--method", "tosa", "--keep-ratio", "0.1", "--frames", "2"]
    with judging(by_question) as stub:
        judge = ["--judge-url", stub.url, "--judge-model", "stub", "--judge-key-env", "JUDGE_KEY"]
        result = CliRunner().invoke(app, [*asked, *model, "--answer-tokens", "4", *judge])
    assert result.exit_code == 0, result.output
    assert "50.0 over 2 questions" in result.output and set(stub.keys) == {"Bearer secret"}
    report = written(tmp_path / "report.json")
    assert (report["overall"], report["not_scored"]) == (50.0, 1)
    assert report["tokens"]["visual_in"] == 2 * 576 and report["scores"]["with_sensor_depth"] == 2
    assert report["scores"]["judge"]["model"] == "stub" and "secret" not in json.dumps(report)
    answer = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[1])["report"]
    assert (answer["depth"]["source"], answer["depth"]["preset"]) == ("client", "scannet")
    assert answer["depth"]["range"][1] == pytest.approx(4.8, abs=0.1)  # the far wall of the sample, in metres
