"""The embedded checkpoint is whole, fits the repository, and sees; the bundled frames are RoomQA."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor

from evals.inputs import frame_inputs
from evals.rooms import VALIDATION, Question, examples, make_scene, render
from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.score import accuracy_by_type
from tosa import MergeSpec, make_plan
from training.layout import lay_out
from training.model import IMAGE, VIDEO
from vlm import Vlm, encode, features, layouts, load_vlm, plan_views, prompt_ids, spell, view_pixels
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


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: each for path in sorted(folder.glob("*.safetensors")) for name, each in load_file(path).items()
    }


def test_new_names_left_every_weight_as_it_was() -> None:
    """The digest is that of revision f4c7fbc92c4eb566, whose tower had no level `vision_model`."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights_of(EMBEDDED["room-tiny"]).items()):
        old = name.replace("vision_tower.vision_model.", "vision_tower.")
        digest.update(f"{old} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.numpy().tobytes())
    assert digest.hexdigest() == "6afd5c68d4b6d7a28fec51040e65316f8f1792383646f596e60918d5d4579bc6"


def test_names_are_those_of_published_checkpoints() -> None:
    names = weights_of(EMBEDDED["room-tiny"])
    towers = [name for name in names if "vision_tower" in name]
    assert towers and all(name.startswith("vision_tower.vision_model.") for name in towers)
    index = json.loads((EMBEDDED["room-tiny"] / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == names.keys()


def test_the_layout_of_older_revisions_still_loads(vlm: Vlm, tmp_path: Path) -> None:
    for path in EMBEDDED["room-tiny"].iterdir():
        if path.name not in ("SHA256SUMS", "processor_config.json", "tosa_probe.json"):
            shutil.copy(path, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        old = {name.replace(".vision_model.", "."): each for name, each in load_file(path).items()}
        save_file(old, path, {"format": "pt"})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(".vision_model.", "."))
    older, newer = load_vlm(tmp_path).model.state_dict(), vlm.model.state_dict()
    assert older.keys() == newer.keys()
    assert all(torch.equal(older[name], newer[name]) for name in newer)


def test_its_processor_loads_and_counts_as_we_do(vlm: Vlm) -> None:
    processor: Any = AutoProcessor.from_pretrained(EMBEDDED["room-tiny"])
    picture = Image.open(FRAMES[0] / "rgb.png").convert("RGB")
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    inputs = processor(images=[picture], text=text, return_tensors="pt")
    (layout,) = layouts(vlm, [(picture.height, picture.width)], "auto")
    plan = plan_views(vlm, MergeSpec(), layout)
    assert torch.equal(inputs["input_ids"], prompt_ids(vlm, "How many?", [spell(vlm, layout, plan)]))
    torch.testing.assert_close(inputs["pixel_values"][0], view_pixels(vlm, [picture], layout))


def test_what_training_exports_is_laid_out_alike(tmp_path: Path) -> None:
    for path in EMBEDDED["room-tiny"].iterdir():
        shutil.copy(path, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        old = {name.replace(".vision_model.", "."): each for name, each in load_file(path).items()}
        save_file(old, path, {"format": "pt"})
    (tmp_path / "processor_config.json").unlink()
    lay_out(tmp_path, AutoConfig.from_pretrained(tmp_path), IMAGE, VIDEO)
    lay_out(tmp_path, AutoConfig.from_pretrained(tmp_path), IMAGE, VIDEO)  # changes nothing any more
    for path in EMBEDDED["room-tiny"].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    "spec",
    [MergeSpec(), MergeSpec(method="tome", keep_ratio=0.25), MergeSpec(method="tosa", keep_ratio=0.25)],
    ids=lambda spec: spec.method,
)
def test_it_sees(vlm: Vlm, spec: MergeSpec) -> None:
    """Far above guessing on scenes it was not trained on."""
    assert accuracy(vlm, spec, np.asarray) > 0.72


def test_with_black_pictures_it_can_only_guess(vlm: Vlm) -> None:
    assert accuracy(vlm, MergeSpec(), np.zeros_like) < 0.55


def accuracy(vlm: Vlm, spec: MergeSpec, change: Callable[[np.ndarray], np.ndarray]) -> float:
    """Ask about 40 scenes whose pictures were changed; return the share of right answers."""
    plan, asked, answers = make_plan(spec, vlm.shape), list[Question](), list[str]()
    for example in examples(VALIDATION, 40):
        with torch.inference_mode():
            pixels, spatial = frame_inputs(vlm, change(example.frame.rgb), example.frame.depth)
            tokens = encode(vlm.tower, pixels, plan, spatial)
        texts = [question.question for question in example.questions]
        asked += example.questions
        answers += answer_frames(vlm, features(vlm, tokens)[None], [texts], 8)[0]
    return accuracy_by_type(asked, answers)["overall"]


@pytest.mark.parametrize("folder", FRAMES, ids=lambda folder: folder.name)
def test_bundled_frames_are_made_by_the_shipped_renderer(folder: Path) -> None:
    seed = json.loads((folder / "scene.json").read_text())["seed"]
    assert seed in VALIDATION
    frame = render(make_scene(seed))
    bundled = np.asarray(Image.open(folder / "rgb.png")).astype(int)
    assert np.abs(bundled - frame.rgb).max() <= 1
    depth_mm = np.asarray(Image.open(folder / "depth.png")).astype(int)
    assert np.abs(depth_mm - frame.depth * 1000).max() <= 1
