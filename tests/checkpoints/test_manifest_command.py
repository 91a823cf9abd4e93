"""`tosa-vqa manifest FOLDER`, and the setting that asks for what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from depth.estimate import EstimatorError
from service.cli.main import app
from service.pipeline.models import load_models
from service.settings import Settings
from tests.checkpoints.test_manifest import flip
from tests.depth.estimators import CASES
from tests.depth.estimators import write_checkpoint as write_estimator
from tests.service.files import IMAGE
from tests.vlm.conftest import write_checkpoint
from vlm import VlmError


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_checkpoint_is_listed_and_from_then_on_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, frame = write_checkpoint(tmp_path / "made"), tmp_path / "rgb.png"
    frame.write_bytes(IMAGE)
    ask = ("ask", "--image", frame, "--question", "how many ?", "--method", "tome", "--model", folder)
    assert run(*ask).exit_code == 0
    monkeypatch.setenv("TOSA_VQA_REQUIRE_MANIFEST", "true")
    refused = run(*ask)
    assert refused.exit_code == 2 and "has no SHA256SUMS" in refused.stderr
    written = run("manifest", folder)
    assert written.exit_code == 0 and "SHA256SUMS" in written.stdout
    assert run(*ask).exit_code == 0
    flip(folder / "model.safetensors")
    refused = run(*ask)
    assert refused.exit_code == 2 and "model.safetensors is not the file" in refused.stderr


@pytest.mark.parametrize(("name", "said"), [("nothing", "holds no file"), ("file", "holds no file")])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    result = run("manifest", tmp_path / name)
    assert result.exit_code == 2 and said in result.stderr and result.stdout == ""


def test_the_service_loads_neither_model_without_a_manifest(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model")
    estimator = write_estimator(tmp_path / "estimator", CASES["depth-anything"])
    given: dict[str, Any] = {"model": str(model), "depth_model": str(estimator), "depth_size_px": 56}
    load_models(Settings(**given))
    for folder, error in ((model, VlmError), (estimator, EstimatorError)):
        with pytest.raises(error, match="has no SHA256SUMS") as refused:
            load_models(Settings(**given, require_manifest=True))
        assert refused.value.code == "broken_checkpoint"
        assert run("manifest", folder).exit_code == 0
    load_models(Settings(**given, require_manifest=True))
