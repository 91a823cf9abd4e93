"""The embedded checkpoint is whole, fits the repository, and sees; the bundled frames are RoomQA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evals.inputs import frame_inputs
from evals.rooms import VALIDATION, examples, make_scene, render
from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.score import accuracy_by_type
from tosa import MergeSpec, make_plan
from vlm import Vlm, encode, features, load_vlm
from vlm.load import EMBEDDED

ROOT = Path(__file__).parent.parent
MIB = 2**20
FRAMES = sorted((ROOT / "examples" / "frames").iterdir())


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_vlm("room-tiny")


def test_it_fits_the_repository() -> None:
    shards = list(EMBEDDED["room-tiny"].glob("*.safetensors"))
    assert shards and all(shard.stat().st_size <= 15 * MIB for shard in shards)
    assert sum(file.stat().st_size for file in EMBEDDED["room-tiny"].iterdir()) <= 64 * MIB


def test_it_is_what_it_says(vlm: Vlm) -> None:
    assert type(vlm.model).__name__ == "LlavaOnevisionForConditionalGeneration"
    assert vlm.shape.patches >= 576
    assert not any(file.suffix in (".bin", ".pt", ".py") for file in EMBEDDED["room-tiny"].iterdir())


@pytest.mark.parametrize(
    "spec",
    [MergeSpec(), MergeSpec(method="tome", keep_ratio=0.25), MergeSpec(method="tosa", keep_ratio=0.25)],
    ids=lambda spec: spec.method,
)
def test_it_sees(vlm: Vlm, spec: MergeSpec) -> None:
    """Far above guessing on scenes it was not trained on; with black pictures it can only guess."""
    plan = make_plan(spec, vlm.shape)
    split = list(examples(VALIDATION, 80))
    asked = [question for example in split for question in example.questions]
    answers: dict[str, list[str]] = {"seen": [], "black": []}
    for example in split:
        for name, rgb in (("seen", example.frame.rgb), ("black", np.zeros_like(example.frame.rgb))):
            with torch.inference_mode():
                pixels, spatial = frame_inputs(vlm, rgb, example.frame.depth)
                tokens = encode(vlm.tower, pixels, plan, spatial)
            texts = [question.question for question in example.questions]
            answers[name] += answer_frames(vlm, features(vlm, tokens)[None], [texts], 8)[0]
    assert accuracy_by_type(asked, answers["seen"])["overall"] > 0.72
    assert accuracy_by_type(asked, answers["black"])["overall"] < 0.55


@pytest.mark.parametrize("folder", FRAMES, ids=lambda folder: folder.name)
def test_bundled_frames_are_made_by_the_shipped_renderer(folder: Path) -> None:
    seed = json.loads((folder / "scene.json").read_text())["seed"]
    assert seed in VALIDATION
    frame = render(make_scene(seed))
    bundled = np.asarray(Image.open(folder / "rgb.png")).astype(int)
    assert np.abs(bundled - frame.rgb).max() <= 1
    depth_mm = np.asarray(Image.open(folder / "depth.png")).astype(int)
    assert np.abs(depth_mm - frame.depth * 1000).max() <= 1
