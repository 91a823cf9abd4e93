"""The embedded depth checkpoint is whole, fits the repository, loads by the ordinary classes, and sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from depth.estimators import load_depth_estimator
from evals.depth_estimation import evaluate, inverse_of
from evals.rooms import VALIDATION, make_scene, render

FOLDER = Path(__file__).parent.parent / "depth" / "checkpoints" / "room-depth-tiny"
MIB = 2**20


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForDepthEstimation.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoImageProcessor.from_pretrained(FOLDER)


def test_it_fits_the_repository() -> None:
    files = list(FOLDER.iterdir())
    assert all(file.stat().st_size < 14 * MIB for file in files)
    assert sum(file.stat().st_size for file in files) <= 16 * MIB
    assert not any(file.suffix in (".bin", ".pt", ".py") for file in files)


def test_it_is_what_it_says(model: Any, processor: Any) -> None:
    assert type(model).__name__ == "DepthAnythingForDepthEstimation"
    assert model.config.backbone_config.model_type == "dinov2"
    assert model.config.depth_estimation_type == "relative" and model.dtype == torch.float32
    inputs = processor(images=np.zeros((48, 80, 3), np.uint8), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 252, 252)
    assert model(**inputs).predicted_depth.shape == (1, 252, 252)


def test_it_sees() -> None:
    """The goal, on frames it was not trained on; with black pictures it cannot reach it."""
    look = inverse_of(load_depth_estimator("room-depth-tiny"))
    seen = evaluate(look, VALIDATION[60:70])
    black = evaluate(lambda rgb: look(np.zeros_like(rgb)), VALIDATION[60:70])
    assert seen["abs_rel"] <= 0.10 and seen["delta1"] >= 0.90
    assert black["abs_rel"] > 0.10 and black["delta1"] < 0.90


def test_larger_is_nearer() -> None:
    frame = render(make_scene(VALIDATION[0]), 252)
    inverse = inverse_of(load_depth_estimator("room-depth-tiny"))(frame.rgb)
    assert np.corrcoef(inverse.ravel(), 1 / frame.depth.ravel())[0, 1] > 0.9
