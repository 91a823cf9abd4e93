"""Loading depth estimators: what is accepted, and one clear error for everything that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import depth.estimators.load as load_module
from depth import depth_codes
from depth.estimate import estimate
from depth.estimators import load_depth_estimator
from depth.estimators.families import FAMILIES
from tests.depth.estimators import CASES, edit, edit_weights, refusal, sample_images, write_checkpoint
from tests.needs import needs

Small = Callable[..., Path]


def test_the_default_checkpoint_is_loaded_by_its_name():
    estimator = load_depth_estimator()
    assert (estimator.id, estimator.kind, estimator.size_px) == ("room-depth-tiny", "inverse", 252)
    assert estimator.licence == "apache-2.0"
    (depth,) = estimate(estimator, sample_images(1))
    assert depth.shape == (252, 252)
    assert depth_codes(depth, (24, 24), 24).shape == (24, 24)


def test_a_missing_default_checkpoint_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(load_module.EMBEDDED, "room-depth-tiny", tmp_path / "nothing")
    error = refusal("room-depth-tiny")
    assert error.code == "model_not_found"
    assert "room-depth-tiny is missing" in str(error)


@pytest.mark.parametrize(
    ("name", "wanted", "used"),
    [
        ("depth-anything", 252, 252),
        ("depth-anything", 250, 252),
        ("dpt", 252, 256),
        ("dpt", 1, 32),
        ("dpt-dinov2", 252, 252),
        ("dpt-swin", 252, 256),
        ("dpt-hybrid", 252, 64),
        ("zoedepth", 252, 256),
        ("pro", 252, 32),
        ("glpn", 252, 256),
        ("tips", 252, 252),
    ],
)
def test_the_view_is_the_nearest_size_the_model_takes(name: str, wanted: int, used: int):
    config = CASES[name].make().config
    assert FAMILIES[config.model_type].size_px(config, wanted) == used


def test_depth_pro_is_seen_at_its_own_size():
    published = SimpleNamespace(patch_size=384, scaled_images_ratios=[0.25, 0.5, 1])
    assert FAMILIES["depth_pro"].size_px(published, 252) == 1536


@pytest.mark.parametrize("size_px", [0, -14])
def test_a_size_below_one_is_refused(small: Small, size_px: int):
    assert refusal(small(), size_px=size_px).code == "invalid_size"


def test_the_weights_take_the_type_asked_for(tmp_path: Path):
    folder = write_checkpoint(tmp_path, CASES["depth-anything"])
    estimator = load_depth_estimator(folder, dtype=torch.bfloat16, size_px=64)
    assert {weight.dtype for weight in estimator.model.parameters()} == {torch.bfloat16}
    assert estimate(estimator, sample_images(1))[0].values.dtype == np.float32


def test_the_revision_follows_the_weights(small: Small):
    folder = small()
    first = load_depth_estimator(folder, size_px=64).revision
    assert len(first) == 16
    assert load_depth_estimator(folder, size_px=64).revision == first
    edit_weights(folder, lambda weights: weights["head.head.4.bias"].add_(1))
    assert load_depth_estimator(folder, size_px=64).revision != first


@pytest.mark.parametrize("source", ["no-such-model", "/no/such/folder", "./here", "a/b/c", ""])
def test_a_name_that_is_nothing_is_refused_with_what_would_be_accepted(source: str):
    error = refusal(source)
    assert error.code == "model_not_found"
    assert "room-depth-tiny" in str(error)


def test_a_hub_id_without_a_network_is_clear():
    error = refusal("depth-anything/Depth-Anything-V2-Small-hf")
    assert error.code == "model_not_found"
    assert "not in the local cache" in str(error)


def test_a_hub_id_is_found_in_the_cache_with_its_commit(small: Small, monkeypatch: pytest.MonkeyPatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = small(commit)
    asked = []

    def snapshot(source: str, revision: str | None, allow_patterns: Any) -> str:
        asked.append((source, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    estimator = load_depth_estimator("owner/model", size_px=64)
    assert (estimator.id, estimator.revision) == ("owner/model", commit)
    settings = ["*.json", "README.md", "SHA256SUMS"]
    assert asked == [("owner/model", None, settings), ("owner/model", commit, "*.safetensors")]


def test_only_safetensors_are_loaded(small: Small):
    folder = small()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert refusal(folder).code == "no_safetensors"


def test_remote_code_is_never_run(small: Small):
    folder = small()
    (folder / "trap.py").write_text("raise SystemExit('remote code ran')")
    trap = {"AutoConfig": "trap.Config", "AutoModelForDepthEstimation": "trap.Model"}
    edit(folder / "config.json", auto_map=trap)
    edit(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "trap.Processor"})
    assert refusal(folder, size_px=64).code == "broken_checkpoint"


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("prompt_depth_anything", "prompt"),
        ("chmv2", "trees"),
        ("llava", "depth_anything, dpt, zoedepth, depth_pro, glpn, tipsv2_dpt"),
        (None, "of unknown type"),
    ],
)
def test_other_models_are_refused_with_the_reason(small: Small, model_type: str | None, said: str):
    folder = small()
    edit(folder / "config.json", model_type=model_type)
    error = refusal(folder)
    assert error.code == "unsupported_model"
    assert said in str(error)


def _lose_a_weight(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("head.head.2.weight").sum())


def _misshape_a_weight(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"head.head.2.weight": torch.zeros(2, 2)}))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no preprocessor": lambda folder: (folder / "preprocessor_config.json").unlink(),
    "config is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config is a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config of a wrong type": lambda folder: edit(folder / "config.json", hidden_size="wide"),
    "mean of two colours": lambda folder: edit(folder / "preprocessor_config.json", image_mean=[0, 0]),
    "weights are no weights": lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"),
    "a weight is missing": _lose_a_weight,
    "a weight of another shape": _misshape_a_weight,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(small: Small, damage: str):
    folder = small()
    DAMAGES[damage](folder)
    error = refusal(folder, size_px=64)
    assert error.code == "broken_checkpoint"
    assert str(folder) in str(error)


def test_weights_that_no_image_reaches_may_be_missing(small: Small):
    """As in Intel/dpt-large (transformers issue 28292)."""
    folder = small()
    whole = estimate(load_depth_estimator(folder, size_px=64), sample_images(1))[0].values

    def lose(weights: dict[str, torch.Tensor]) -> None:
        unused = [name for name in weights if "fusion_stage.layers.0.residual_layer1" in name]
        assert len(unused) == 4
        for name in unused:
            del weights[name]

    edit_weights(folder, lose)
    assert np.array_equal(
        estimate(load_depth_estimator(folder, size_px=64), sample_images(1))[0].values, whole
    )


def test_a_model_that_gives_nan_is_refused_at_once(small: Small):
    folder = small()
    edit_weights(folder, lambda weights: weights["head.head.0.bias"].fill_(torch.nan))
    error = refusal(folder, size_px=64)
    assert error.code == "estimate_failed"
    assert "not finite" in str(error)


@needs("no gpu")
def test_a_device_that_is_not_there_is_refused(small: Small):
    assert refusal(small(), device="cuda").code == "device_unavailable"
