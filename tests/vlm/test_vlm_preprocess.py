"""Preprocessing against transformers' own image processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from vlm import Vlm, load_vlm, pixel_values


def test_a_square_image_equals_the_image_processor_of_transformers(
    checkpoint: Callable[..., Path], sample_images: Sequence[Image.Image]
):
    folder = checkpoint()
    theirs = AutoImageProcessor.from_pretrained(folder)([sample_images], return_tensors="pt")["pixel_values"]
    assert theirs.shape == (3, 1, 3, 56, 56)  # several images of one sample: one view each
    torch.testing.assert_close(pixel_values(load_vlm(folder), sample_images), theirs[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(57, 55), (112, 30), (17, 200), (640, 480), (20, 20)])
@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_any_image_equals_the_whole_view_of_the_image_processor(
    checkpoint: Callable[..., Path], size: tuple[int, int], resample: Image.Resampling
):
    folder, vlm = checkpoint(), load_vlm(checkpoint())
    vlm = replace(vlm, image_processor=replace(vlm.image_processor, resample=resample))
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise_image = Image.fromarray(noise)
    processor = AutoImageProcessor.from_pretrained(folder, resample=resample)
    theirs = processor([noise_image], return_tensors="pt")["pixel_values"][0, :1]  # what follows are tiles
    torch.testing.assert_close(pixel_values(vlm, [noise_image]), theirs, rtol=0, atol=1e-6)


def test_a_kernel_that_torchvision_does_not_have_is_pillows(vlm: Vlm):
    box = replace(vlm, image_processor=replace(vlm.image_processor, resample=Image.Resampling.BOX))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8))
    halved = noise.resize((56, 56), Image.Resampling.BOX)
    torch.testing.assert_close(pixel_values(box, [noise]), pixel_values(vlm, [halved]), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(56, 56), (112, 30), (17, 200)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_any_image_is_squashed_to_one_view(vlm: Vlm, size: tuple[int, int], mode: str):
    values = pixel_values(vlm, [Image.new("RGB", size, (255, 255, 255)).convert(mode)])
    white = (1 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.5, 0.6, 0.7])
    torch.testing.assert_close(values, white.view(1, 3, 1, 1).expand(1, 3, 56, 56))


def test_left_stays_left_and_top_stays_top(vlm: Vlm):
    noise_image = Image.new("RGB", (200, 100))
    noise_image.paste((255, 0, 0), (0, 0, 100, 50))
    red = pixel_values(vlm, [noise_image])[0, 0]
    assert red[:26, :26].min() > 0.9
    assert red[30:].max() < -0.9
    assert red[:, 30:].max() < -0.9
