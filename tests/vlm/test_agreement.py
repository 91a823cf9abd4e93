"""A checkpoint whose image processor makes other views than its config says is refused while it loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.vlm.families import write_family
from vlm import VlmError, load_vlm
from vlm.check import check

PART = {"image": "image_processor", "video": "video_processor"}
# family, processor, what it says, words of the refusal
OTHERS: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    (
        "llava_onevision",
        "image",
        {"image_grid_pinpoints": [[132, 264]]},
        ("has 1 image_grid_pinpoints", "36"),
    ),
    ("llava_onevision", "image", {"image_grid_pinpoints": [[132, 140]]}, ("(132, 140)",)),
    ("llava_onevision", "image", {"size": {"height": 140, "width": 140}}, ("140", "132")),
    ("llava_onevision", "video", {"size": {"height": 140, "width": 140}}, ("140", "132")),
    ("llava_next", "image", {"image_grid_pinpoints": [[112, 224]]}, ("has 1 image_grid_pinpoints", "5")),
    ("llava_next", "image", {"crop_size": {"height": 126, "width": 126}}, ("126", "112")),
    ("llava", "image", {"crop_size": {"height": 126, "width": 126}}, ("126", "112")),
    ("paligemma", "image", {"size": {"height": 224, "width": 224}}, ("224", "112")),
    ("gemma3", "image", {"size": {"height": 448, "width": 448}}, ("448", "224")),
    ("internvl", "image", {"size": {"height": 224, "width": 224}}, ("224", "112")),
    ("internvl", "video", {"size": {"height": 224, "width": 224}}, ("224", "112")),
    ("idefics3", "image", {"max_image_size": {"longest_edge": 112}}, ("112", "84")),
    ("smolvlm", "image", {"max_image_size": {"longest_edge": 192}}, ("192", "128")),
    ("smolvlm", "video", {"max_image_size": {"longest_edge": 192}}, ("192", "128")),
    *(
        (family, processor, {name: 1 if name != "patch_size" else 28}, (name,))
        for family in ("qwen2_5_vl", "qwen3_vl", "qwen3_5")
        for processor in ("image", "video")
        for name in ("patch_size", "merge_size", "temporal_patch_size")
    ),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a checkpoint of a family once."""
    return cache(lambda name: write_family(tmp_path_factory.mktemp(name), name))


@pytest.fixture
def folder(original: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy the checkpoint of a family, for a test that changes it."""
    return lambda name: shutil.copytree(original(name), tmp_path / name)


@pytest.mark.parametrize(("family", "processor", "says", "words"), OTHERS, ids=str)
def test_views_that_the_config_does_not_say_are_refused(
    folder: Callable[[str], Path], family: str, processor: str, says: dict[str, Any], words: tuple[str, ...]
) -> None:
    at = folder(family)
    change(at, lambda raw: raw[PART[processor]].update(says))
    for read in (load_vlm, check):
        sentence = refusal(read, at, "broken_checkpoint")
        assert all(word in sentence for word in words), sentence
        assert "processor" in sentence


def test_canvases_in_another_order_are_refused(folder: Callable[[str], Path]) -> None:
    """Of a square image two of them fit equally well, and the first is taken."""
    at = folder("llava_next")
    change(at, lambda raw: raw["image_processor"]["image_grid_pinpoints"].reverse())
    assert "another order" in refusal(load_vlm, at, "broken_checkpoint")


def test_canvases_that_nobody_says_are_the_usual_ones(folder: Callable[[str], Path]) -> None:
    at = folder("llava_onevision")
    change(at, lambda raw: raw["image_processor"].pop("image_grid_pinpoints"))
    assert "image_grid_pinpoints" in refusal(load_vlm, at, "broken_checkpoint")


@pytest.mark.parametrize("said", ["pad", "anyres", "anyres_max_", "anyres_max_0"])
def test_an_aspect_ratio_without_a_number_is_refused(folder: Callable[[str], Path], said: str) -> None:
    at = folder("llava_onevision")
    path = at / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vision_aspect_ratio": said}))
    for read in (load_vlm, check):
        assert "anyres_max_" in refusal(read, at, "unsupported_model")


def change(at: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = at / "processor_config.json"
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))


def refusal(read: Callable[[Path], object], at: Path, code: str) -> str:
    with pytest.raises(VlmError) as error:
        read(at)
    assert (error.value.code, str(at) in str(error.value)) == (code, True), str(error.value)
    return str(error.value)
