"""The commands: what they print and write, and exit code 2 with one sentence on bad input."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import service.timing
from depth.geometry import read_intrinsics, read_pose
from service.cli import main
from service.cli.in_process import load_models_here
from service.cli.main import app
from service.cli.options import DEPTH_OPTIONS, MERGE_OPTIONS, VIEWS_OPTION
from service.pipeline.models import Models
from service.pipeline.response_models import VqaResponse
from service.request.coercion import option
from service.request.frame_fields import PosedFields
from service.request.schemas import VqaFields
from service.settings import Settings
from service.timing import StageTimer
from tests.depth.files import decode_depth
from tests.service.files import DEPTH, IMAGE
from tests.vlm.families import write_family
from tosa import METHODS, MergeSpec, make_plan
from vlm.families import FAMILIES
from vlm.load import load_shape


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    (tmp_path / "rgb.png").write_bytes(IMAGE)
    (tmp_path / "depth.png").write_bytes(DEPTH)
    return tmp_path


def run(*words: object, **environment: object) -> Result:
    env = {name: str(value) for name, value in environment.items()}
    return CliRunner().invoke(app, list(map(str, words)), env=env)


def refused(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output and result.stdout == ""
    return result.stderr


def test_ask_prints_a_table(frame: Path, checkpoint: Path) -> None:
    result = run(
        *("ask", "--image", frame / "rgb.png", "--depth", frame / "depth.png", "--question", "how many ?"),
        *("--keep-ratio", 0.5, "--max-new-tokens", 3, "--model", checkpoint),
    )
    assert result.exit_code == 0, result.output
    for word in (
        "answer",
        "tosa, keep_ratio 0.5",
        "16 -> 8",
        "metric, 0.5 to 3.571 m, 100% valid",
        "vision",
        "total",
    ):
        assert word in result.stdout


def test_ask_prints_json(frame: Path, checkpoint: Path) -> None:
    result = run(
        *("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--method", "tome"),
        *("--r", "4,0,3", "--max-new-tokens", 3, "--model", checkpoint, "--json"),
    )
    answer = VqaResponse.model_validate_json(result.stdout)
    assert (answer.merge.method, answer.merge.r, answer.merge.tokens_out) == ("tome", [4, 0, 3], 9)
    assert answer.depth is None and answer.timings_ms.queue is None


def test_ask_takes_everything_about_merging(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint, "--json")
    free = run(
        *(*ask, "--method", "saint", "--r", 3, "--layers", "0,2", "--schedule", "-0.5"),
        *("--option", "tau=0.5", "--option", "gamma=3"),
        *("--prop-attn", "--order", "merge", "--max-new-tokens", 2),
    )
    merge = VqaResponse.model_validate_json(free.stdout).merge
    assert (merge.layers, merge.options, merge.prop_attn) == ([0, 2], {"tau": 0.5, "gamma": 3}, True)
    grid = run(*ask, "--method", "cubist", "--r-hw", "1,2", "--layers", "1", "--max-new-tokens", 2)
    assert VqaResponse.model_validate_json(grid.stdout).merge.tokens_out == 6
    place = run(
        *(*ask, "--method", "tosa", "--depth-source", "none", "--spatial-kernel", "distance"),
        *("--no-prop-attn", "--max-new-tokens", 2),
    )
    answer = VqaResponse.model_validate_json(place.stdout)
    assert answer.depth is not None and answer.depth.source == "none"
    assert (answer.merge.spatial_kernel, answer.merge.prop_attn) == ("distance", False)


def test_ask_says_in_words_what_steered(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint)
    result = run(*ask, "--method", "tosa", "--depth-source", "none", "--max-new-tokens", 2)
    assert "none: row and column only" in result.stdout
    result = run(*ask, "--method", "cubist", "--max-new-tokens", 2)
    assert "depth_weight=0.0" in result.stdout and "not used" in result.stdout


def test_the_command_line_knows_every_field_of_merging_and_depth() -> None:
    others = {"question", "max_new_tokens", "temperature", "top_p", "seed", "stream", "cache", "timeout_s"}
    others |= {"confidence", *PosedFields.model_fields}
    assert {option.name for option in (VIEWS_OPTION, *MERGE_OPTIONS, *DEPTH_OPTIONS)} == set(
        VqaFields.model_fields
    ) - others
    for command in ("ask", "overlay"):
        text = run(command, "--help", COLUMNS=200).stdout
        assert all(option in text for option in ("--r-hw", "--option", "--no-prop-attn", "--depth-source"))


def test_options_of_the_command_line_have_types() -> None:
    assert [option(text) for text in ("a=1", "a=0.5", "a=null", "a=b=c", "a=")] == [
        *(("a", 1), ("a", 0.5), ("a", None), ("a", "b=c"), ("a", "")),
    ]
    for text in ("a", "=1", ""):
        with pytest.raises(ValueError):
            option(text)


def test_ask_refuses(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint)
    assert "unknown method 'zip'; known: none, tome, tosa" in refused(*ask, "--method", "zip")
    assert "needs depth" in refused(*ask, "--method", "tosa", "--depth-model", "none")
    assert "each image" in refused(*ask, "--method", "tosa", "--depth-source", "client")
    assert "from 0 to 2, got (0, 3)." in refused(*ask, "--method", "tome", "--r", 1, "--layers", "0,3")
    assert "name=value" in refused(*ask, "--method", "saint", "--option", "tau")
    assert "saint: tau must be a number from -1 to 1" in refused(
        *ask, "--method", "saint", "--option", "tau=high"
    )
    assert "saint has no option 'tao'; it has tau, gamma" in refused(
        *ask, "--method", "saint", "--option", "tao=1"
    )
    assert "keep_ratio" in refused(*ask, "--method", "tome", "--keep-ratio", "2")
    assert "empty" in refused(*ask[:-2], "--question", " ", "--model", checkpoint)
    assert "colour picture of depth" in refused(*ask, "--depth", frame / "rgb.png")
    assert "No such file" in refused("ask", "--image", frame / "no.png", "--question", "x")
    assert "not a folder" in refused(*ask[:-1], "/no/such/model")
    assert "config.json" in refused(*ask[:-1], frame)
    assert "device" in refused(*ask, "--device", "abacus")
    assert "--question" in refused("ask", "--image", frame / "rgb.png")


def test_settings_that_cannot_be(frame: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSA_VQA_MAX_QUEUE", "many")
    assert "max_queue" in refused("ask", "--image", frame / "rgb.png", "--question", "x")
    assert "max_queue" in refused("serve", "--port", 0)


def test_overlay_writes_a_picture(frame: Path, checkpoint: Path) -> None:
    words = ("overlay", "--image", frame / "rgb.png", "--depth", frame / "depth.png", "--model", checkpoint)
    result = run(*words, "--out", frame / "out.png")
    assert result.exit_code == 0, result.output
    assert "16 patches in 4 tokens" in result.stdout
    with Image.open(frame / "out.png") as drawn:
        assert drawn.size == (64, 48)
    assert "No such file" in refused(*words, "--out", frame / "no" / "out.png")


@pytest.mark.parametrize(
    ("family", "counted"),
    [("llava_next", "64 patches in 16 tokens"), ("smolvlm", "4 cells of 4 x 4 patches in 1 tokens")],
)
def test_overlay_counts_what_merges(frame: Path, tmp_path: Path, family: str, counted: str) -> None:
    folder = write_family(tmp_path / family, family)
    words = ("overlay", "--image", frame / "rgb.png", "--method", "tome", "--keep-ratio", 0.25)
    result = run(*words, "--model", folder, "--out", frame / "out.png")
    assert result.exit_code == 0, result.output
    assert counted in result.stdout


def test_ask_begins_to_time_when_the_model_is_loaded(
    frame: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def load(settings: Settings) -> Models:
        happened.append("load")
        return load_models_here(settings)

    class Timer(StageTimer):
        def __init__(self) -> None:
            happened.append("time")
            super().__init__()

    monkeypatch.setattr(main, "load_models_here", load)
    monkeypatch.setattr(service.timing, "StageTimer", Timer)
    words = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--max-new-tokens", 2)
    result = run(*words, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    assert happened == ["load", "time"]


def test_ask_divides_a_model_among_devices(frame: Path, checkpoint: Path) -> None:
    words = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--max-new-tokens", 2)
    several = ("--device-map", "auto", "--device-memory-gib", "cpu=1")
    alone, divided = (run(*words, "--model", checkpoint, *more) for more in ((), several))
    assert alone.exit_code == divided.exit_code == 0, divided.output
    assert alone.stdout.splitlines()[0] == divided.stdout.splitlines()[0]
    small = run(*words, "--model", checkpoint, *several[:3], "cpu=0.000001")
    assert (small.exit_code, "there is room for 0.00 GiB on cpu" in small.stderr) == (2, True)


@pytest.mark.parametrize("text", ["20", "cuda:0=", "cuda:0=20GiB", "cuda:0=1;cuda:1=1", "=3"])
def test_memory_of_devices_is_named_in_one_form(text: str) -> None:
    assert Settings(device_memory_gib="cuda:0=20, cpu=0.5").device_memory == {
        "cuda:0": 20 * 2**30,
        "cpu": 2**29,
    }
    assert Settings().device_memory is None
    with pytest.raises(ValueError, match="name devices with GiB"):
        Settings(device_memory_gib=text)


def test_overlay_writes_a_film_strip(frame: Path, checkpoint: Path) -> None:
    words = ("overlay", "--image", frame / "rgb.png", "--method", "tome", "--model", checkpoint)
    result = run(*words, "--r", "4,0,4", "--strip", "--out", frame / "strip.png")
    assert result.exit_code == 0, result.output
    with Image.open(frame / "strip.png") as strip:
        assert strip.width > 2 * 240 and strip.width < 3 * 240  # two layers merged


@pytest.mark.parametrize("method", METHODS)
def test_plan_prints_every_layer(checkpoint: Path, method: str) -> None:
    keep = () if method == "none" else ("--keep-ratio", 0.5)
    result = run("plan", "--method", method, *keep, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    plan = make_plan(MergeSpec(method, keep_ratio=keep[1] if keep else None), load_shape(checkpoint))
    assert result.stdout.startswith(plan.table() + "\n")
    assert f"16 -> {plan.tokens_out} patch tokens, keep_ratio {plan.keep_ratio:.4g}" in result.stdout
    assert f"{plan.flops_ratio:.2f} of those without merging" in result.stdout


def test_plan_needs_no_weights(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    result = run("plan", "--method", "tome", "--r", 2, "--model", tmp_path)
    assert result.exit_code == 0, result.output


def test_plan_writes_a_plot(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("plan", "--method", "tome", "--keep-ratio", 0.5, "--model", checkpoint)
    assert run(*words, "--plot", tmp_path / "out.png").exit_code == 0
    with Image.open(tmp_path / "out.png") as plot:
        assert plot.format == "PNG"
    assert "No such file" in refused(*words, "--plot", tmp_path / "no" / "out.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "tosa-vqa[plots]" in refused(*words, "--plot", tmp_path / "out.png")


def test_plan_refuses(checkpoint: Path) -> None:
    plan = ("plan", "--model", checkpoint, "--method")
    assert "smallest" in refused(*plan, "tome", "--keep-ratio", 0.01)
    assert "unknown method 'zip'; known: none, tome" in refused(*plan, "zip")
    assert "not a folder" in refused("plan", "--model", "/no/such/model")
    assert "config.json" in refused("plan", "--model", checkpoint.parent)


def test_scene_writes_what_the_service_reads(tmp_path: Path) -> None:
    result = run("scene", "--seed", 3, "--out", tmp_path / "room")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "room" / "rgb.png") as image:
        width, height = image.size
    depth = decode_depth((tmp_path / "room" / "depth.png").read_bytes())
    assert depth.shape == (height, width) and 0 < np.median(depth.values) < 20
    record = json.loads((tmp_path / "room" / "scene.json").read_text())
    assert record["questions"]
    assert all({"question", "answer", "type"} <= set(question) for question in record["questions"])


def test_scene_writes_a_condition_and_a_depth_camera(tmp_path: Path) -> None:
    spoiled = ("--condition", "dark", "--strength", 3, "--depth-camera", "active")
    assert run("scene", "--seed", 3, "--out", tmp_path, *spoiled).exit_code == 0
    record = json.loads((tmp_path / "scene.json").read_text())
    assert (record["condition"], record["depth_camera"]) == ({"kind": "dark", "strength": 3}, "active")
    assert "'rain' is not one of 'dark'" in refused(
        "scene", "--seed", 3, "--out", tmp_path, "--condition", "rain"
    )
    assert "--condition" in refused("scene", "--seed", 3, "--out", tmp_path, "--strength", 3)


def test_scene_writes_a_walk_that_episodes_accept(tmp_path: Path) -> None:
    options = ("--walk", "--frames", 8, "--moved", "--drift", 0.05, "--depth-camera", "active")
    result = run("scene", "--seed", 40_000_003, "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "walk.json").read_text())
    assert len(record["frames"]) == 8 and record["questions"] and record["drift_m"] == 0.05
    for number, frame in enumerate(record["frames"]):
        with Image.open(tmp_path / frame["rgb"]) as image:
            assert decode_depth((tmp_path / frame["depth"]).read_bytes()).shape == image.size[::-1]
        read_pose(frame["pose"], record["episode"]["convention"])
        assert np.allclose(np.loadtxt(tmp_path / f"{number:02}.txt"), frame["pose"])
    assert not read_intrinsics(record["episode"]["intrinsics"], (384, 384))[1]
    assert "--walk" in refused("scene", "--seed", 3, "--out", tmp_path, "--drift", 0.1)
    assert "--condition" in refused("scene", "--seed", 3, "--out", tmp_path, "--walk", "--condition", "dark")


def test_scene_refuses_a_folder_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused("scene", "--seed", 3, "--out", tmp_path / "file")
    assert "--seed" in refused("scene", "--seed", -1, "--out", tmp_path)


def test_help_lists_the_commands() -> None:
    text = run("--help", COLUMNS=200).stdout
    commands = re.findall(r"^  ([a-z]+)  ", text[text.index("Commands:") :], re.MULTILINE)
    assert commands == [
        *(
            "serve",
            "ask",
            "overlay",
            "depth",
            "plan",
            "manifest",
            "mcp",
            "scene",
            "check",
            "models",
            "calibrate",
        ),
    ]
    assert "Write a synthetic room" in text and "Write SHA256SUMS" in text


def test_version_is_that_of_the_distribution() -> None:
    assert run("--version").stdout == f"tosa-vqa {version('tosa-vqa')}\n"


def test_a_command_nobody_has_is_refused() -> None:
    assert "No such command" in refused("scenery")


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlm.checkpoint_files.write_manifest", interrupted)
    result = run("manifest", ".")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")


def test_check_says_what_will_work(checkpoint: Path) -> None:
    found = run("check", checkpoint)
    assert found.exit_code == 0, found.output
    for word in (
        "llava_onevision",
        "siglip_vision_model",
        "float32",
        "million",
        "views single",
        "tosa",
        "encoder",
    ):
        assert word in found.stdout
    as_json = json.loads(run("check", "room-tiny", "--json").stdout)
    (single,) = (each for each in as_json["views"] if each["views"] == ["single"])
    assert (as_json["family"], single["grid"], single["tokens"]) == ("llava_onevision", [24, 24], 577)
    (tosa,) = (each for each in single["methods"] if each["method"] == "tosa")
    assert (tosa["tokens"], tosa["saves"], tosa["refusal"]) == (145, ["vit", "lm"], None)


def test_check_refuses_as_loading_does(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert "a language model without a vision tower" in refused("check", tmp_path)
    assert "not a folder" in refused("check", "no-such-model")


def test_models_lists_the_families() -> None:
    listed = run("models").stdout
    for word in (*FAMILIES, "Apache-2.0", "2929", "Nothing was downloaded"):
        assert word in listed
    assert len(json.loads(run("models", "--json").stdout)) > len(FAMILIES)
