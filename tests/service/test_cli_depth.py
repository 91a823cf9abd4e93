"""`tosa-vqa depth`, and depth on the other commands: what they print, write and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import service.pipeline.estimation
import service.timing
from service.pipeline.response_models import VqaResponse
from service.timing import StageTimer
from tests.depth.files import npy
from tests.service.files import DEPTH, IMAGE, encode
from tests.service.test_cli import refused, run

DEPTH_M = npy((np.arange(500, 500 + 48 * 64).reshape(48, 64) / 1000).astype(np.float32))


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    (tmp_path / "rgb.png").write_bytes(IMAGE)
    (tmp_path / "depth.png").write_bytes(DEPTH)
    (tmp_path / "depth.npy").write_bytes(DEPTH_M)
    return tmp_path


def test_depth_prints_what_was_understood(frame: Path) -> None:
    result = run("depth", frame / "depth.png", "--preset", "scannet", "--image", frame / "rgb.png")
    assert result.exit_code == 0, result.output
    for words in (
        "png, uint16, 64 x 48",
        "metric, as scannet",
        "0.5 to 3.571 m, median 2.0355 m",
        "m; 1000 of the file make one",
        "100.0% of the pixels",
        "has the same proportions",
    ):
        assert words in result.stdout
    assert "guessed" not in result.stdout
    guessed = run("depth", frame / "depth.npy").stdout
    assert "Floating-point values were taken as metres." in guessed


def test_depth_prints_json_and_writes_a_picture(frame: Path) -> None:
    out = frame / "out.png"
    result = run(
        *("depth", frame / "depth.png", "--kind", "inverse", "--invalid", "500,501", "--json", "--out", out)
    )
    seen = json.loads(result.stdout)
    assert (seen["kind"], seen["range"], seen["scale"]) == ("inverse", [3571, 502], None)
    assert seen["valid_ratio"] == round(1 - 2 / (48 * 64), 4)
    with Image.open(out) as picture:
        assert picture.format == "PNG"
    assert run("depth", frame / "depth.png", "--scale", 5000, "--json").stdout.count('"scale": 5000') == 1


def test_depth_refuses(frame: Path) -> None:
    depth = ("depth", frame / "depth.png")
    assert "Choose from: scannet, tum" in refused(*depth, "--preset", "kinect")
    assert "depth_kind is metric, inverse or relative." in refused(*depth, "--kind", "feet")
    assert "alone" in refused(*depth, "--preset", "tum", "--scale", 1000)
    assert "depth_scale" in refused(*depth, "--scale", "mm")
    assert "at most 16" in refused(*depth, "--invalid", "none")
    assert "colour picture" in refused("depth", frame / "rgb.png")
    assert "No such file" in refused("depth", frame / "no.png")
    assert "No such file" in refused(*depth, "--out", frame / "no" / "out.png")
    (frame / "tall.png").write_bytes(encode(np.zeros((64, 48, 3), np.uint8), "PNG"))
    assert "same view" in refused(*depth, "--image", frame / "tall.png")
    assert "JPEG, PNG or WebP" in refused(*depth, "--image", frame / "depth.npy")


def test_ask_estimates_depth_where_there_is_none(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint)
    ask = (*ask, "--max-new-tokens", 2, "--method", "tosa")
    reply = " ".join(run(*ask).stdout.split())
    assert "inverse, estimated by room-depth-tiny (apache-2.0)" in reply
    answer = VqaResponse.model_validate_json(run(*ask, "--json").stdout)
    assert answer.depth is not None and answer.depth.cached is False and answer.timings_ms.estimate
    assert answer.timings_ms.estimate < answer.timings_ms.total


def test_ask_does_not_count_loading_the_estimator(
    frame: Path, checkpoint: Path, estimator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes an hour by the clock of the request."""
    load, passed = service.pipeline.estimation.load_estimation, [0.0]

    def slowly(settings: object) -> object:
        passed[0] += 3600
        return load(settings)  # type: ignore[arg-type]

    class Late(StageTimer):
        def __init__(self) -> None:
            super().__init__(lambda: time.perf_counter() + passed[0])

    monkeypatch.setattr(service.pipeline.estimation, "load_estimation", slowly)
    monkeypatch.setattr(service.timing, "StageTimer", Late)
    ask = ("ask", "--image", frame / "rgb.png", "--question", "?", "--model", checkpoint, "--method", "tosa")
    environment = {"TOSA_VQA_DEPTH_SIZE_PX": 56}
    result = run(*ask, "--depth-model", estimator, "--max-new-tokens", 2, "--json", **environment)
    timings = VqaResponse.model_validate_json(result.stdout).timings_ms
    assert passed == [3600] and timings.estimate and timings.total < 3_600_000


def test_ask_reads_depth_as_it_was_meant(frame: Path, checkpoint: Path) -> None:
    ask = ("ask", "--image", frame / "rgb.png", "--question", "how many ?", "--model", checkpoint, "--json")
    ask = (*ask, "--max-new-tokens", 2, "--depth", frame / "depth.png")
    scannet = VqaResponse.model_validate_json(run(*ask, "--depth-preset", "scannet").stdout).depth
    assert scannet is not None and (scannet.preset, scannet.scale) == ("scannet", 1000)
    result = run(*ask, "--depth-kind", "relative", "--depth-invalid", "500")
    relative = VqaResponse.model_validate_json(result.stdout).depth
    assert relative is not None and (relative.kind, relative.guessed) == ("relative", [])
    aside = VqaResponse.model_validate_json(run(*ask, "--depth-source", "estimate").stdout).depth
    assert aside is not None and aside.source == "estimate"
    assert "alone" in refused(*ask, "--depth-preset", "tum", "--depth-scale", 1)
    assert "estimates no depth" in refused(*ask, "--depth-source", "estimate", "--depth-model", "none")
    guessed = run(*[word for word in ask if word != "--json"]).stdout
    assert "Integers were taken as millimetres." in guessed


def test_overlay_estimates_depth_too(frame: Path, checkpoint: Path) -> None:
    words = ("overlay", "--image", frame / "rgb.png", "--method", "tosa", "--model", checkpoint)
    result = run(*words, "--out", frame / "out.png")
    assert result.exit_code == 0 and "16 patches in 4 tokens" in result.stdout
    missing = refused(*words, "--out", frame / "out.png", "--depth-model", "no/such/thing")
    assert "not a folder" in missing


WITHOUT_A_MODEL = [
    (["depth", "depth.png", "--image", "rgb.png"], ["transformers", "vlm", "fastapi", "depth.estimators"]),
    (["depth", "rgb.png"], ["transformers", "vlm", "fastapi", "depth.estimators"]),
    (["plan", "--method", "tome"], ["depth.estimators"]),
]


def test_commands_that_need_no_model_stay_quick(frame: Path) -> None:
    """What they import is what they wait for; one process runs them all, the most frugal first."""
    program = f"""
import sys
from service.cli.main import app
for words, spared in {WITHOUT_A_MODEL}:
    try:
        app(words)
    except SystemExit:
        pass
    print("imported", [name for name in spared if name in sys.modules])
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=frame,
        env={"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    imported = [line for line in done.stdout.splitlines() if line.startswith("imported")]
    assert imported == ["imported []"] * 3, done.stdout + done.stderr
