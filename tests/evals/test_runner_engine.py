"""The whole way, with real models: through the engine in this process, and through a server on a socket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals.runners.__main__ import BENCHMARKS, command_line
from evals.runners.answerers import Answer, EngineAnswerer, HttpAnswerer, RunError
from evals.runners.asking import Spec, fields_of, sends_depth
from evals.runners.items import DatasetError, Item
from evals.runners.vqav2 import load
from tests.service.live import Live, live
from tests.vlm.conftest import write_checkpoint
from vlm import VlmError

DATA = Path(__file__).parent / "data"
FRAME = Path(__file__).parents[2] / "examples" / "frames"
TOSA: Spec = {"method": "tosa", "keep_ratio": 0.5, "depth": "none"}
AS_IT_COMES = ("timings_ms", "batch_size", "cached")


@pytest.fixture(autouse=True)
def _one_torch_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the command line loads."""
    monkeypatch.setenv("TOSA_VQA_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("runner") / "tiny")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Live]:
    with live(model, num_threads=1) as server:
        yield server


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[EngineAnswerer]:
    answerer = EngineAnswerer(str(model), TOSA, batch_size=3, num_threads=1, depth_model="none")
    yield answerer
    answerer.close()


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """The sample's questions, one about a file that is no picture, and one about two frames."""
    broken = tmp_path_factory.mktemp("items") / "broken.jpg"
    broken.write_text("no picture")
    asked = [entry.item for entry in load(DATA / "vqav2")]
    two = Item("two", "What is this ?", (*asked[0].images, *asked[2].images))
    return [*asked, Item("broken", "What is this ?", (broken,)), two]


def told(found: Iterator[Answer]) -> dict[str, Any]:
    """What does not depend on the moment."""
    said: dict[str, Any] = {}
    for answer in found:
        report = {name: value for name, value in answer.report.items() if name not in AS_IT_COMES}
        report.pop("error", None)
        said[answer.id] = {"text": answer.text, "code": answer.code, **report}
    return said


def test_the_engine_and_a_server_say_the_same(
    engine: EngineAnswerer, server: Live, items: list[Item]
) -> None:
    here = told(engine.answer(items))
    there = told(HttpAnswerer(str(server.client.base_url), TOSA, 2).answer(items))
    assert here == there and len(here) == len(items)
    assert {id_ for id_, one in here.items() if one["code"]} == {"broken"}
    assert here["broken"]["code"] == "bad_image"
    assert here["two"]["merge"]["tokens_out"] == 2 * here["1000"]["merge"]["tokens_out"]
    assert here["1000"]["depth"]["source"] == "none"


def test_settings_say_what_answers_depend_on(engine: EngineAnswerer, server: Live) -> None:
    over_http = HttpAnswerer(str(server.client.base_url), TOSA).settings
    assert engine.settings["model"] == over_http["model"] and over_http["model"]["id"] == "tiny"
    assert engine.settings["spec"] == TOSA == over_http["spec"]
    assert (engine.settings["dtype"], engine.settings["depth_model"]) == ("float32", None)
    json.dumps([engine.settings, over_http])


def test_batches_fill(engine: EngineAnswerer, items: list[Item]) -> None:
    sizes = [answer.report["batch_size"] for answer in engine.answer(items[:5]) if answer.code is None]
    assert max(sizes) > 1


def test_depth_files_steer_only_where_they_are_used(model: Path) -> None:
    folder = next(path for path in sorted(FRAME.iterdir()) if (path / "depth.png").exists())
    item = Item("1", "What is this ?", (folder / "rgb.png",), (folder / "depth.png",), "scannet")
    used: Spec = {"method": "tosa", "keep_ratio": 0.5}
    with closing(EngineAnswerer(str(model), used, num_threads=1, depth_model="none")) as engine:
        (answer,) = engine.answer([item])
    assert (answer.report["depth"]["source"], answer.report["depth"]["preset"]) == ("client", "scannet")
    assert sends_depth(item, used) and not sends_depth(Item("1", "?", item.images), used)
    for spec in ({}, {"method": "none"}, {"method": "tome"}, {**used, "depth": "estimate"}, TOSA):
        assert not sends_depth(item, spec) and "depth_preset" not in fields_of(item, spec)
    assert fields_of(item, {})["method"] == "none"  # also with depth, where the service would choose tosa


def test_a_file_that_is_gone_ends_the_run(engine: EngineAnswerer, items: list[Item]) -> None:
    gone = Item("9", "?", (Path("gone.jpg"),))
    with pytest.raises(DatasetError, match=r"gone\.jpg: No such file"):
        list(engine.answer([*items[:2], gone]))
    assert len(list(engine.answer(items[:2]))) == 2


def test_a_stopped_engine_ends_the_run(model: Path, items: list[Item]) -> None:
    answerer = EngineAnswerer(str(model), {}, num_threads=1, depth_model="none")
    (first,) = answerer.answer(items[:1])
    assert (first.code, first.report["merge"]["method"]) == (None, "none")
    answerer._engine.model_thread.close()
    with pytest.raises(RunError, match="engine has stopped"):
        list(answerer.answer(items[:1]))
    answerer.close()


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(VlmError, match="no-such-model"):
        EngineAnswerer("./no-such-model", {})


def command(*arguments: object) -> Result:
    return CliRunner().invoke(command_line(BENCHMARKS), list(map(str, arguments)))


def run(name: str, out: Path, *more: object) -> dict[str, Any]:
    ended = command(name, "--data", DATA / name, "--out", out, *more)
    assert ended.exit_code == 0, ended.output
    assert str(out / "report.json") in ended.output.replace("\n", "")
    return json.loads((out / "report.json").read_text())


def test_vqav2_in_process_from_the_command_line(tmp_path: Path) -> None:
    spec = ("--method", "tosa", "--keep-ratio", 0.25)
    result = run("vqav2", tmp_path, "--model", "room-tiny", *spec)
    assert (result["benchmark"], result["questions"], result["unanswered"]) == ("vqav2", 5, {})
    assert result["settings"]["spec"] == {"method": "tosa", "keep_ratio": 0.25}
    assert result["merge"]["method"] == "tosa" and result["depth_sources"] == {"estimate": 5}
    assert (result["tokens"]["visual_in"], result["tokens"]["visual_out"]) == (576, 144)
    low, high = result["mean_score_interval_95"]
    assert low <= result["overall"] / 100 <= high and result["machine"]["commit"] and result["date"]
    assert {"vision", "prefill", "total"} <= set(result["median_ms"])
    answers = (tmp_path / "answers.jsonl").read_bytes()
    assert run("vqav2", tmp_path, "--model", "room-tiny", *spec)["scores"] == result["scores"]
    assert (tmp_path / "answers.jsonl").read_bytes() == answers  # nothing was asked again
    other = command("vqav2", "--data", DATA / "vqav2", "--out", tmp_path, "--depth-model", "none")
    assert other.exit_code == 2 and re.search(
        r"other questions or settings\s+\(depth_model, spec\)", other.stderr
    )


def test_gqa_over_http_from_the_command_line(server: Live, tmp_path: Path) -> None:
    spec = '{"method": "tome", "keep_ratio": 0.5}'
    url = str(server.client.base_url)
    result = run("gqa", tmp_path, "--url", url, "--concurrency", 2, "--merge-json", spec, "--limit", 4)
    assert (result["questions"], result["options"]) == (4, {"limit": 4})
    assert result["settings"]["spec"] == json.loads(spec) and result["settings"]["name"] == url
    tokens = result["tokens"]
    assert tokens["visual_out"] * 2 == tokens["visual_in"] and result["depth_sources"] == {"unused": 4}
    predictions = json.loads((tmp_path / "testdev_balanced_predictions.json").read_text())
    assert [one["questionId"] for one in predictions] == ["20001", "20002", "20003", "20004"]


def test_counting_in_process_from_the_command_line(tmp_path: Path) -> None:
    ended = command(
        *("vqav2-counting", "--data", DATA / "vqav2", "--out", tmp_path, "--depth-model", "none"),
        *("--images", DATA / "vqav2" / "val2014"),
    )
    assert ended.exit_code == 0, ended.output
    result = json.loads((tmp_path / "report.json").read_text())
    assert result["questions"] == 2 and result["settings"]["spec"] == {"method": "none"}
    assert result["options"] == {"images": str(DATA / "vqav2" / "val2014"), "limit": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "nowhere"), "No such file"),
        (("--method", "nosuch"), "unknown method 'nosuch'; known: none"),
        (("--merge-json", "{"), "takes one JSON object"),
        (("--merge-json", "[1]"), "takes one JSON object"),
        (("--merge-json", '{"metod": "tome"}'), "does not know"),
        (("--merge-json", '{"max_new_tokens": 2}'), "leave out max_new_tokens"),
        (("--merge-json", "{}", "--method", "tome"), "leave out method"),
        (("--url", "http://127.0.0.1:9", "--model", "x"), "--model: the server of --url decides that"),
        (("--concurrency", 3), "--concurrency: only with --url"),
        (("--model", "./no-such-model"), "no-such-model"),
        (("--dtype", "int8"), "dtype must be one of"),
        (("--url", "http://127.0.0.1:9", "--api-key-file", "nowhere"), "nowhere: No such file"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_sentence(
    arguments: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    ended = command("gqa", "--data", DATA / "gqa", "--out", tmp_path / "out", *arguments)
    assert ended.exit_code == 2 and said in ended.stderr, ended.output
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_images_that_are_missing_are_counted_before_anything_is_asked(tmp_path: Path) -> None:
    ended = command("gqa", "--data", DATA / "gqa", "--images", tmp_path, "--out", tmp_path / "out")
    assert ended.exit_code == 2 and "3 of 3 files are missing, the first is" in ended.stderr


def test_every_benchmark_is_a_command() -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    assert {"gqa", "vqav2", "vqav2-counting"} <= set(names) and len(set(names)) == len(names)
    listed = command("--help").output
    assert all(name in listed for name in names)
