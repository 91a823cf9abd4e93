"""Quantised weights that run on any machine: tiny checkpoints of every family, quantised and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlm.weights
from tests.vlm.families import CASES, write_family
from vlm import Vlm, VlmError, load_vlm
from vlm.check import check

BLOCK = 16
SCHEMES: Mapping[str, dict[str, Any]] = {
    "int8": {"num_bits": 8, "type": "int", "strategy": "channel"},
    "int4": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": BLOCK},
    "float8": {"num_bits": 8, "type": "float", "strategy": "channel"},
}
LARGEST_ERROR = 0.07  # of the largest weight of a matrix: half a step of int4, or of float8 near its end


def compressed_tensors(folder: Path, scheme: str) -> None:
    """Quantise every matrix of a checkpoint but the head, as compressed-tensors saves them."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    ignore = ["re:.*lm_head"]
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(folder)
    weights = QuantizationArgs(symmetric=True, **SCHEMES[scheme])
    group = QuantizationScheme(targets=["Linear"], weights=weights)
    apply_quantization_config(
        model,
        QuantizationConfig(config_groups={"all": group}, ignore=ignore, quantization_status="frozen"),  # pyright: ignore[reportArgumentType]
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            rows = module.weight.data.unflatten(1, (-1, weights.group_size or module.weight.shape[1]))
            module.weight_scale.data = calculate_qparams(rows.amin(-1), rows.amax(-1), weights)[0]
    compressor: Any = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    say(folder, ignore=ignore)


def fp8(folder: Path, _: str) -> None:
    """Quantise the matrices of the language model's layers in blocks, as published checkpoints do."""
    path = folder / "model.safetensors"
    found: dict[str, Tensor] = {}
    for name, weight in load_file(path).items():
        if ".layers." not in name or "vision" in name or not name.endswith("proj.weight"):
            found[name] = weight
            continue
        blocks = weight.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
        scale = blocks.abs().amax((1, 3)) / 448
        scaled = blocks / scale[:, None, :, None]
        found[name] = scaled.flatten(2, 3).flatten(0, 1).to(torch.float8_e4m3fn)
        found[f"{name}_scale_inv"] = scale
    save_file(found, path, {"format": "pt"})
    parts = ("vision_tower", "visual", "vision_model", "multi_modal_projector", "connector")
    say(
        folder,
        quant_method="fp8",
        activation_scheme="dynamic",
        weight_block_size=[BLOCK, BLOCK],
        modules_to_not_convert=["lm_head", *(f"model.{part}" for part in parts)],
    )


def say(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"] = raw.get("quantization_config", {}) | settings
    path.write_text(json.dumps(raw))


WRITERS = {"int8": compressed_tensors, "int4": compressed_tensors, "float8": compressed_tensors, "fp8": fp8}
QUICK = [("llava", "fp8"), ("qwen3_vl", "int4")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.long)
        for name in CASES
        for kind in WRITERS
    ],
)
@torch.inference_mode()
def test_quantised_weights_are_read_as_what_they_stand_for(
    member: Callable[..., Any], tmp_path: Path, name: str, kind: str
) -> None:
    whole: Vlm = member(name).vlm
    WRITERS[kind](write_family(tmp_path, name), kind)
    loaded = load_vlm(tmp_path)  # which answers once
    changed, saved = 0, load_file(tmp_path / "model.safetensors")
    for key, weight in whole.model.named_parameters():
        found = loaded.model.get_parameter(key)
        assert found.dtype == weight.dtype == torch.float32
        error = float((found - weight).abs().max() / weight.abs().max().clamp(min=1e-9))
        assert error <= LARGEST_ERROR, key
        changed += error > 0
    assert changed == sum("weight_scale" in name for name in saved) > 5
    assert check(tmp_path).quantised == ("fp8" if kind == "fp8" else "compressed-tensors")


def test_weights_of_compressed_tensors_take_the_memory_of_ordinary_ones(tmp_path: Path) -> None:
    compressed_tensors(write_family(tmp_path, "llava"), "int4")
    found = check(tmp_path)
    assert found.weight_bytes == found.parameters * 4


def test_weights_that_stay_packed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin of the test above: what transformers does by itself does not run."""
    monkeypatch.setattr(vlm.weights, "prepare", lambda *_: None)
    compressed_tensors(write_family(tmp_path, "llava"), "int4")
    with pytest.raises(VlmError, match="compressed-tensors, do not run on cpu in float32") as error:
        load_vlm(tmp_path)
    assert error.value.code == "broken_checkpoint"
    say(tmp_path, ignore=["language_model.lm_head"])
    with pytest.raises(VlmError, match=r"lm_head\.weight_packed among them: its list of modules"):
        load_vlm(tmp_path)
