"""What is said of a checkpoint without its weights agrees with what is loaded, refusals included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import vlm.quantised
from tests.vlm.families import CASES, write_family
from tosa import METHODS, MergeSpec
from vlm import VlmError, layouts, load_vlm, plan_views, spell
from vlm.check import FRAMES, KEEP_RATIO, PICTURE, check
from vlm.families import FAMILIES
from vlm.known import KNOWN

# Checkpoints whose geometry is that of a family's case, whose weights are random.
SAME_GEOMETRY = [each for each in KNOWN if "SmolVLM2-2.2B" not in each.id]


@pytest.mark.parametrize("name", CASES)
def test_it_says_without_weights_what_is_loaded(
    member: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    it = member(name)
    for path in it.folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = check(tmp_path)
    weights = sum(each.numel() for each in it.vlm.model.parameters())
    assert (found.family, found.dtype, found.parameters) == (name, "float32", weights)
    assert found.weight_bytes == 4 * weights
    assert {views for each in found.views for views in each.views} == {"auto", *it.vlm.family.kinds}
    for each in found.views:
        sizes = [PICTURE] * (FRAMES if "video" in each.views else 1)
        (layout,) = layouts(it.vlm, sizes, each.views[0])  # type: ignore[arg-type]
        assert (each.count, each.grid) == (len(layout.views), layout.grid)
        assert each.tokens == sum(spell(it.vlm, layout, plan_views(it.vlm, MergeSpec(), layout)).counts)
        assert {one.method for one in each.methods} == set(METHODS) - {"none"}
        (tome,) = (one for one in each.methods if one.method == "tome")
        plan = plan_views(it.vlm, MergeSpec("tome", keep_ratio=KEEP_RATIO), layout)
        assert tome.tokens == sum(spell(it.vlm, layout, plan).counts)
        assert tome.vit_flops_ratio == pytest.approx(plan.flops_ratio, abs=1e-4)


def test_a_method_that_does_not_run_says_what_would(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "llava", change=_cut_layers)
    (auto, *_) = check(folder).views
    refused = {one.method: one.refusal for one in auto.methods if one.refusal is not None}
    assert refused and all(one for one in refused.values())
    assert all(one.saves == () and one.tokens is None for one in auto.methods if one.refusal)


def _cut_layers(config: Any) -> None:
    config.vision_config.num_hidden_layers = 2  # of which one runs, where a layer removes half at most


def test_memory_follows_the_dtype_and_the_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_family(tmp_path, "llava")
    whole = check(folder)
    raw = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr(vlm.quantised, "find_spec", lambda name: name)
    for settings, bits, dtype in (
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4, "bfloat16"),
        ({"quant_method": "gptq", "bits": 8}, 8, "float32"),
        ({"quant_method": "torchao"}, None, "float32"),
    ):
        (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": settings}))
        found = check(folder)
        assert (found.quantised, found.dtype) == (settings["quant_method"], dtype)
        assert found.weight_bytes == (None if bits is None else whole.parameters * bits // 8)
    (folder / "config.json").write_text(json.dumps(raw | {"dtype": "bfloat16"}))
    assert check(folder).weight_bytes == 2 * whole.parameters


@pytest.mark.parametrize("damage", ["model_type", "chat_template.jinja"])
def test_what_loading_refuses_is_refused(tmp_path: Path, damage: str) -> None:
    folder = write_family(tmp_path, "llava")
    if damage == "model_type":
        (folder / "config.json").write_text('{"model_type": "qwen2"}')
    else:
        (folder / damage).unlink()
    said = []
    for read in (load_vlm, check):
        with pytest.raises(VlmError) as error:
            read(folder)
        said.append((error.value.code, str(error.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", {each.family: None for each in SAME_GEOMETRY})
def test_tokens_of_known_models_follow_from_their_geometry(member: Callable[..., Any], name: str) -> None:
    loaded = member(name, real=True).vlm
    counted = []
    for views in ("auto", "single"):
        (layout,) = layouts(loaded, [PICTURE], views)
        counted.append(sum(spell(loaded, layout, plan_views(loaded, MergeSpec(), layout)).counts))
    assert {each.tokens for each in SAME_GEOMETRY if each.family == name} == {tuple(counted)}


def test_known_models_are_of_families_that_load() -> None:
    assert {each.family for each in KNOWN} <= set(FAMILIES)
    assert len({each.id for each in KNOWN}) == len(KNOWN)
    (larger,) = (each for each in KNOWN if each not in SAME_GEOMETRY)
    assert larger.tokens == (13 * 9 * 9, 9 * 9)  # 13 views of 27 x 27 patches in cells of 3 x 3
    assert all(asdict(each)["licence"] for each in KNOWN)
