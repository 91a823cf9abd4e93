"""ToSA's alpha per layer, and the edges of the removal schedules that golden data does not cover."""

import pytest

from tosa import alpha_schedule, paper_schedule


def test_alpha_words() -> None:
    assert alpha_schedule("increase", 5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert alpha_schedule("decrease", 5) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert alpha_schedule("uniform", 3) == (0.5, 0.5, 0.5)


def test_alpha_numbers() -> None:
    assert alpha_schedule(0.3, 2) == (0.3, 0.3)
    assert alpha_schedule(1, 2) == (1.0, 1.0)
    assert alpha_schedule((0.1, 0.9), 2) == (0.1, 0.9)


@pytest.mark.parametrize("inflection", [-1.0, 0.0, 1.0])
def test_one_layer_has_no_slope(inflection: float) -> None:
    assert paper_schedule(5, 1, inflection) == (5,)
    assert alpha_schedule("increase", 1) == (0.0,)
