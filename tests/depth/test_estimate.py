"""The way from an estimator's answer to a DepthMap: what is kept, what is clamped, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth import depth_codes
from depth.estimate import EstimatorError, estimate
from tests.depth.estimators import Fake, sample_images

RAMP = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4)


def test_inverse_depth_below_zero_is_infinitely_far():
    (depth,) = estimate(Fake(lambda image: RAMP), sample_images(1))
    assert (depth.kind, depth.unit, depth.shape) == ("inverse", None, (3, 4))
    assert depth.values.dtype == np.float32
    assert np.array_equal(depth.values, RAMP.clip(0))
    assert depth.valid.all()


def test_metric_depth_that_is_no_distance_is_masked():
    (depth,) = estimate(Fake(lambda image: RAMP, "metric"), sample_images(1))
    assert (depth.kind, depth.unit) == ("metric", "m")
    assert np.array_equal(depth.valid, RAMP > 0)
    assert np.array_equal(depth.values, np.where(RAMP > 0, RAMP, 0))


def test_every_image_gets_its_own_map():
    fake = Fake(lambda image: np.full((2, 2), image.getpixel((0, 0))))
    maps = estimate(fake, [Image.new("L", (3, 3), grey) for grey in (1, 5, 3)])
    assert [float(depth.values[0, 0]) for depth in maps] == [1, 5, 3]
    assert fake.asked == [3]


def test_no_image_asks_for_nothing():
    fake = Fake(lambda image: RAMP)
    assert estimate(fake, []) == []
    assert fake.asked == []


@pytest.mark.parametrize("kind", ["inverse", "metric"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_never_gets_through(kind: Any, wrong: float):
    answer = RAMP.copy()
    answer[1, 2] = wrong
    assert "not finite" in _sentence(Fake(lambda image: answer, kind))


def test_a_metric_map_without_any_distance_is_refused():
    assert "no distance" in _sentence(Fake(lambda image: -np.ones((2, 2)), "metric"))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
def test_an_answer_of_another_shape_is_refused(shape: tuple[int, ...]):
    assert "shape" in _sentence(Fake(lambda image: np.zeros(shape)))


def test_a_flat_map_gives_flat_codes():
    (depth,) = estimate(Fake(lambda image: np.zeros((8, 8))), sample_images(1))
    assert not depth_codes(depth, (2, 2), 4).any()


def _sentence(fake: Fake) -> str:
    with pytest.raises(EstimatorError) as error:
        estimate(fake, sample_images(1))
    assert error.value.code == "estimate_failed"
    assert "fake" not in str(error.value), "clients are told, and the name may be a path"
    return str(error.value)
