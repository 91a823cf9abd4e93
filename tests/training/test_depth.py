"""Training of depth: batches repeat, frame and depth stay together, the loss forgives scale and shift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, DepthAnythingForDepthEstimation

from training.depth_model import IMAGE_PX, build_model, build_processor, depth_loss
from training.export_depth import export
from training.stage_depth import HIGH, LOW, LOW_PX, DepthBatches, batches, flip, jitter


def test_batches_repeat_and_show_what_they_say() -> None:
    recipe = replace(LOW, scenes=2)
    one, again = DepthBatches(recipe, range(5))[3], DepthBatches(recipe, range(3, 5))[0]
    assert one.pixels is not None and again.pixels is not None
    assert torch.equal(one.pixels, again.pixels) and torch.equal(one.inverse_m, again.inverse_m)
    assert one.pixels.shape == (2, 3, LOW_PX, LOW_PX) and one.inverse_m.shape == (2, LOW_PX, LOW_PX)
    assert one.pixels.abs().max() <= 1
    assert (one.inverse_m > 1 / 10).all() and (one.inverse_m < 2).all()
    other = DepthBatches(recipe, range(5))[2]
    assert not torch.equal(one.inverse_m, other.inverse_m)


def test_the_resolution_changes_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.stage_depth.LOW", replace(LOW, scenes=1))
    monkeypatch.setattr("training.stage_depth.HIGH", replace(HIGH, scenes=1))
    sizes = [batch.inverse_m.shape[-1] for batch in batches(range(1, 4), low_steps=2, workers=0)]
    assert sizes == [LOW_PX, IMAGE_PX, IMAGE_PX]


def test_a_mirrored_frame_has_mirrored_depth() -> None:
    inverse = torch.rand(16, 6, 6)
    pixels = inverse[:, None].expand(-1, 3, -1, -1)
    turned_pixels, turned = flip(pixels, inverse, torch.Generator().manual_seed(0))
    assert torch.equal(turned_pixels[:, 0], turned)
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(turned, inverse, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(turned, inverse, strict=True)]
    assert any(mirrored) and any(kept) and all(a != b for a, b in zip(mirrored, kept, strict=True))


def test_jitter_is_small_and_seeded() -> None:
    pixels = torch.rand(8, 3, 16, 16) * 2 - 1
    changed = jitter(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(changed, jitter(pixels, torch.Generator().manual_seed(0)))
    assert changed.abs().max() <= 1
    assert 0.01 < (changed - pixels).abs().mean() < 0.3


def test_the_loss_forgives_scale_and_shift_only() -> None:
    inverse = torch.rand(2, 32, 32) + 0.2
    assert depth_loss(3 * inverse + 5, inverse)[0].item() == pytest.approx(0, abs=1e-4)
    assert depth_loss(-inverse, inverse)[0].item() > 1
    assert depth_loss(inverse.flip(0), inverse)[0].item() > 0.5
    assert torch.isfinite(depth_loss(torch.zeros_like(inverse), inverse)[0])


def test_the_loss_reaches_every_weight_and_an_untrained_head_lives() -> None:
    model = build_model(seed=0)
    predicted = model(torch.rand(2, 3, LOW_PX, LOW_PX) * 2 - 1).predicted_depth
    assert (predicted > 0).all()
    depth_loss(predicted, torch.rand_like(predicted) + 0.2)[0].backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert all("residual_layer1" in name for name in still)  # the deepest fusion layer has nothing to add
    assert len(still) <= 4


def test_an_exported_model_is_the_trained_one(tmp_path: Path) -> None:
    model = build_model(seed=3)
    torch.save({"parts": nn.ModuleDict({"model": model}).state_dict()}, tmp_path / "last.pt")
    export(tmp_path, tmp_path / "checkpoint")
    loaded = AutoModelForDepthEstimation.from_pretrained(tmp_path / "checkpoint")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "checkpoint")
    assert isinstance(loaded, DepthAnythingForDepthEstimation) and loaded.dtype == torch.float32
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    pixels = build_processor()(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(images=image, return_tensors="pt")["pixel_values"], pixels)
    assert pixels.shape == (1, 3, IMAGE_PX, IMAGE_PX)
    with torch.inference_mode():
        mine, theirs = model(pixels).predicted_depth, loaded(pixels).predicted_depth
    torch.testing.assert_close(theirs, mine, rtol=5e-3, atol=5e-3)
