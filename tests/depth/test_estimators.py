"""What depth estimation checkpoints of every class answer, and that the library agrees."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from depth.estimate import estimate
from depth.estimators import LoadedEstimator, load_depth_estimator
from depth.estimators.families import FAMILIES
from depth.estimators.preprocess import ImageSettings, view, without_padding
from tests.depth.estimators import CASES, sample_images, write_checkpoint

Load = Callable[..., LoadedEstimator]


def test_every_family_is_tested():
    made = {case.make().config.model_type for case in CASES.values()}
    assert made == set(FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_gives_maps_of_its_kind(load: Load, name: str):
    case, estimator = CASES[name], load(name)
    assert (estimator.kind, estimator.size_px) == (case.kind, case.view_px)
    assert (estimator.licence, estimator.batch_size) == ("apache-2.0", case.batch_size)
    assert not estimator.model.training
    maps = estimate(estimator, sample_images())
    assert [depth.shape for depth in maps] == [(case.map_px, case.map_px)] * 3
    for depth in maps:
        assert (depth.kind, depth.values.dtype) == (case.kind, np.float32)
        assert np.isfinite(depth.values).all()
        assert (depth.values >= 0).all()
        assert depth.valid_ratio > 0.5
        assert depth.values.std() > 1e-4
    assert not np.allclose(maps[0].values, maps[1].values)


@pytest.mark.parametrize("name", CASES)
def test_the_same_image_gives_the_same_map_alone_and_in_a_batch(load: Load, name: str):
    estimator, images = load(name), sample_images()
    together, again = estimate(estimator, images), estimate(estimator, images)
    for image, one, same in zip(images, together, again, strict=True):
        assert np.array_equal(one.values, same.values)
        (alone,) = estimate(estimator, [image])
        assert np.allclose(alone.values, one.values, rtol=1e-4, atol=1e-5 * one.values.max())


def test_images_of_any_size_and_mode_share_a_batch(load: Load):
    estimator, image = load("depth-anything"), sample_images(1)[0]
    images = [
        image,
        image.resize((30, 90)),
        image.convert("L"),
        image.convert("RGBA"),
        Image.new("1", (1, 1)),
    ]
    maps = estimate(estimator, images)
    assert {depth.shape for depth in maps} == {(70, 70)}
    assert np.array_equal(maps[0].values, maps[3].values)


def test_a_long_list_is_cut_into_batches(load: Load, monkeypatch: pytest.MonkeyPatch):
    estimator, seen = load("dpt"), []
    hook = lambda module, args, kwargs: seen.append(len(kwargs["pixel_values"]))  # noqa: E731
    handle = estimator.model.register_forward_pre_hook(hook, with_kwargs=True)
    maps = estimate(estimator, sample_images(20))
    handle.remove()
    assert seen == [16, 4]
    (last,) = estimate(estimator, sample_images(20)[-1:])
    assert np.allclose(maps[-1].values, last.values, atol=1e-5)


def test_every_image_gets_the_head_it_votes_for(load: Load):
    """The library routes a whole batch by the sum of its votes; the twin shows what that would do."""
    estimator, images = load("zoedepth-two-heads"), sample_images(2)
    alone = [_with_votes(estimator, [image], [vote])[0] for image, vote in zip(images, VOTES, strict=True)]
    assert np.allclose(_with_votes(estimator, images, VOTES), alone, atol=1e-5)
    in_one_batch = _with_votes(replace(estimator, batch_size=2), images, VOTES)
    assert np.allclose(in_one_batch[0], alone[0], atol=1e-5)
    assert not np.allclose(in_one_batch[1], alone[1], atol=1e-2)


VOTES = [[3.0, 0.0], [0.0, 1.0]]


def _with_votes(estimator: LoadedEstimator, images: list[Image.Image], votes: list[list[float]]) -> Any:
    left = list(votes)
    head: Any = estimator.model.metric_head
    handle = head.mlp_classifier.register_forward_hook(
        lambda module, args, output: torch.tensor([left.pop(0) for _ in output])
    )
    maps = estimator.predict(images)
    handle.remove()
    return maps


def test_threads_get_what_one_thread_gets(load: Load):
    estimator, images = load("depth-anything"), sample_images(4)
    serial = [estimate(estimator, [image])[0].values for image in images]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda at: estimate(estimator, [images[at % 4]])[0].values, range(24)))
    assert all(np.array_equal(answer, serial[at % 4]) for at, answer in enumerate(answers))


def test_an_image_is_squashed_and_neither_turned_nor_cut():
    image = Image.new("RGB", (80, 20))
    image.paste((255, 0, 0), (0, 0, 20, 10))  # the left quarter of the upper half
    seen = view(image, ImageSettings((0, 0, 0), (1, 1, 1), 1 / 255, Image.Resampling.NEAREST), 8)
    assert seen[0].nonzero().tolist() == [[row, column] for row in range(4) for column in range(2)]
    assert not seen[1:].any()


# The same as the library's own processors, where these do the same


@pytest.mark.parametrize("name", ["depth-anything", "depth-anything-metric", "dpt", "dpt-hybrid", "glpn"])
def test_an_image_of_the_views_size_gives_what_the_library_gives(load: Load, name: str):
    estimator = load(name)
    image = sample_images(1, (estimator.size_px, estimator.size_px))[0]
    assert np.allclose(estimator.predict([image]), _library(estimator, image), rtol=1e-5, atol=1e-5)


def test_depth_pro_gives_the_librarys_metres(load: Load):
    estimator = load("pro")
    image = sample_images(1, (32, 32))[0]
    metres = estimator.predict([image])
    assert np.allclose(metres, _library(estimator, image), rtol=1e-4)


def test_depth_pro_reaches_ten_kilometres_and_no_farther():
    outputs = SimpleNamespace(
        predicted_depth=torch.tensor([[[0.0, 1e-6, 1.0, 1e9]]]), field_of_view=torch.tensor([90.0])
    )
    metres = FAMILIES["depth_pro"].read(outputs)
    assert metres[0, 0].tolist() == pytest.approx([1e4, 1e4, 0.5, 1e-4])


def test_zoedepth_cuts_its_padding_off_like_the_library(load: Load):
    estimator = load("zoedepth", resample=2)
    image = sample_images(1, (64, 48))[0]
    ours, library = estimator.predict([image])[0], _library(estimator, image, source_sizes=[(48, 64)])[0]
    library = np.array(Image.fromarray(library).resize((64, 64), Image.Resampling.BILINEAR))
    without = load("zoedepth", resample=2, do_pad=False).predict([image])[0]
    assert np.abs(ours - library).mean() < 0.3 * library.std()
    assert np.abs(without - library).mean() > 2 * np.abs(ours - library).mean()


def test_what_is_left_of_a_padded_map_is_the_image():
    # 64 x 32 pixels: 16 more left and right, 12 more above and below, as published.
    rows, columns = np.meshgrid(np.arange(56) + 0.5, np.arange(96) + 0.5, indexing="ij")
    inner = without_padding((1000 * (rows - 12) + (columns - 16)).astype(np.float32), (64, 32))
    y, x = (np.arange(56) + 0.5) * 32 / 56, (np.arange(96) + 0.5) * 64 / 96
    assert np.allclose(inner, 1000 * y[:, None] + x, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}, lambda v: (v / 255 - 0.1) / 0.2),
        ({"image_mean": 0.1, "image_std": 0.2}, lambda v: (v / 255 - 0.1) / 0.2),
        ({"do_normalize": False}, lambda v: v / 255),
        ({"do_rescale": False, "image_mean": [100] * 3, "image_std": [50] * 3}, lambda v: (v - 100) / 50),
    ],
)
def test_normalisation_is_the_checkpoints(
    load: Load, settings: dict[str, Any], expected: Callable[[np.ndarray], np.ndarray]
):
    estimator, image = load("dpt", **settings), Image.new("RGB", (9, 9), (200, 200, 200))
    seen = []
    hook = lambda module, args, kwargs: seen.append(kwargs["pixel_values"])  # noqa: E731
    handle = estimator.model.register_forward_pre_hook(hook, with_kwargs=True)
    estimator.predict([image])
    handle.remove()
    assert seen[0].shape == (1, 3, 64, 64)
    assert np.allclose(seen[0].numpy(), expected(np.full(1, 200.0)), atol=1e-5)


def test_glpn_and_tips_are_not_normalised_unless_told(tmp_path: Path):
    for name in ("glpn", "tips", "dpt"):
        folder = write_checkpoint(tmp_path / name, CASES[name])
        (folder / "preprocessor_config.json").write_text("{}")
        settings = load_depth_estimator(folder, size_px=64).image_settings
        assert settings.mean == ((0.5,) * 3 if name == "dpt" else (0.0,) * 3)


def _library(estimator: LoadedEstimator, image: Image.Image, **sizes: Any) -> Any:
    """Ask the library's own processor to do the whole thing, at our size and without keeping the aspect."""
    side = estimator.size_px
    size = {} if estimator.model.config.model_type == "glpn" else {"size": {"height": side, "width": side}}
    squash = {"keep_aspect_ratio": False} if "keep_aspect_ratio" in _asked(estimator) else {}
    processor: Any = AutoImageProcessor.from_pretrained(estimator.id)
    inputs = processor(images=image, return_tensors="pt", **size, **squash)
    with torch.inference_mode():
        outputs = estimator.model(**inputs)
    if estimator.model.config.model_type == "depth_pro":
        sizes = {"target_sizes": [outputs.predicted_depth.shape[-2:]]}
    results = processor.post_process_depth_estimation(outputs, **sizes)
    return np.stack([result["predicted_depth"].numpy() for result in results])


def _asked(estimator: LoadedEstimator) -> set[str]:
    takes_aspect = estimator.model.config.model_type in ("dpt", "depth_anything", "zoedepth")
    return {"keep_aspect_ratio"} if takes_aspect else set()
