"""The commands: what they print and write, and exit code 2 with one sentence on bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from depth import decode_depth
from service.cli import app
from service.schemas import VqaResponse
from tests.service.files import DEPTH, IMAGE


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    (tmp_path / "rgb.png").write_bytes(IMAGE)
    (tmp_path / "depth.png").write_bytes(DEPTH)
    return tmp_path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


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
    for word in ("answer", "tosa, keep_ratio 0.5", "16 -> 8", "metric, 100% valid", "vision", "total"):
        assert word in result.stdout


def test_ask_prints_json(frame: Path, checkpoint: Path) -> None:
    result = run(
        *("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--method", "tome"),
        *("--r", "4,0,3", "--max-new-tokens", 3, "--model", checkpoint, "--json"),
    )
    answer = VqaResponse.model_validate_json(result.stdout)
    assert (answer.merge.method, answer.merge.r, answer.merge.tokens_out) == ("tome", [4, 0, 3], 9)
    assert answer.depth is None and answer.timings_ms.queue is None


def test_ask_refuses(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint)
    assert "Choose from: none, tome, tosa" in refused(*ask, "--method", "zip")
    assert "needs depth" in refused(*ask, "--method", "tosa")
    assert "keep_ratio" in refused(*ask, "--method", "tome", "--keep-ratio", "2")
    assert "empty" in refused(*ask[:-2], "--question", " ", "--model", checkpoint)
    assert "only pictures depth" in refused(*ask, "--depth", frame / "rgb.png")
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


def test_scene_refuses_a_folder_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused("scene", "--seed", 3, "--out", tmp_path / "file")
    assert "--seed" in refused("scene", "--seed", -1, "--out", tmp_path)
