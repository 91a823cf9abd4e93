"""The rendering for people: near is bright, holes stand out, any size and kind can be drawn."""

import numpy as np
import pytest

from depth import DepthMap, depth_picture, masked_depth, metric_depth
from depth.render import HOLE, LONGEST_PX, SHORTEST_PX

RAMP = np.tile(np.linspace(1, 6, 64), (48, 1))


def pixels(depth: DepthMap) -> np.ndarray:
    return np.asarray(depth_picture(depth))


def test_near_is_bright_and_holes_have_a_colour_of_their_own() -> None:
    metres = RAMP.copy()
    metres[20:28, 30:34] = 0
    drawn = pixels(metric_depth(metres))
    assert tuple(drawn[24 * 8, 32 * 8]) == HOLE
    row = drawn[0, : 64 * 8].astype(int)
    assert (row[..., 0] == row[..., 1]).all() and (np.diff(row[..., 0]) <= 0).all()
    assert row[0, 0] == 255 and row[-1, 0] == 0


@pytest.mark.parametrize("kind", ["metric", "inverse", "relative"])
def test_the_near_end_is_bright_whichever_way_values_grow(kind: str) -> None:
    values = 1 / RAMP if kind == "inverse" else RAMP
    drawn = pixels(masked_depth(values, kind, 1.0 if kind == "metric" else None))  # type: ignore[arg-type]
    assert drawn[0, 0, 0] > drawn[0, 64 * 8 - 1, 0]


def test_the_bar_says_metres_or_which_end_is_near() -> None:
    metres, near = pixels(metric_depth(RAMP)), pixels(masked_depth(RAMP, "relative"))
    bar = slice(64 * 8 + 20, None)
    assert (metres[:, bar] != near[:, bar]).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3000, 20), (2, 3), (1440, 1920)])
def test_any_size_is_drawn(shape: tuple[int, int]) -> None:
    drawn = depth_picture(masked_depth(np.ones(shape), "metric", 1.0))
    assert drawn.mode == "RGB"
    assert SHORTEST_PX / 2 <= max(drawn.size) <= LONGEST_PX + 200


def test_input_is_not_modified() -> None:
    depth = metric_depth(RAMP)
    values = depth.values.copy()
    depth_picture(depth)
    np.testing.assert_array_equal(depth.values, values)
