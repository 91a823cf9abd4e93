"""Canonical codes: near is high, holes do not leak, outliers do not use up the range."""

import numpy as np
import pytest
import torch

from depth import DepthError, DepthMap, check_alignment, depth_codes, metric_depth


def ramp(height: int = 60, width: int = 80) -> DepthMap:
    """One metre at the left edge to five at the right."""
    return metric_depth(np.tile(np.linspace(1, 5, width), (height, 1)))


def test_near_is_high_and_the_range_is_used() -> None:
    codes = depth_codes(ramp(), (6, 8), 6)
    assert codes.dtype == torch.int64 and codes.shape == (6, 8)
    assert codes[0].tolist() == sorted(codes[0].tolist(), reverse=True)
    assert codes.max() >= 4 and codes.min() == 0
    assert (codes == codes[0]).all()


def test_masked_mean_by_hand() -> None:
    proximity = np.array([[1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 0.25, 0.0]])
    metres = np.divide(1, proximity, out=np.zeros_like(proximity), where=proximity > 0)
    # Patch means over valid pixels: 1.0 and (0.5 + 0.5 + 0.25) / 3 = 0.4167; percentiles 0.28 and 1.0.
    assert depth_codes(metric_depth(metres), (1, 2), 10).tolist() == [[9, 1]]


def test_holes_take_the_median_patch() -> None:
    metres = np.repeat(np.repeat(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]), 8, 0), 8, 1)
    codes = depth_codes(metric_depth(metres), (2, 3), 27)
    assert codes[1, 2] == codes[0, 2]  # three metres, the median of five patches


def test_one_far_outlier_does_not_use_up_the_levels() -> None:
    metres = ramp().values.copy()
    metres[0, :3] = 9e8
    assert len(depth_codes(metric_depth(metres), (6, 8), 27).unique()) >= 7


def test_a_box_has_the_codes_of_its_part_in_the_range_of_the_whole() -> None:
    whole = depth_codes(ramp(), (6, 8), 27)
    assert torch.equal(depth_codes(ramp(), (3, 4), 27, (0.5, 0.5, 1, 1)), whole[3:, 4:])
    assert torch.equal(depth_codes(ramp(), (6, 8), 27, (0, 0, 1, 1)), whole)


def test_what_a_box_has_beyond_the_picture_takes_the_median_patch() -> None:
    codes = depth_codes(ramp(), (6, 16), 27, (-0.5, 0, 1.5, 1))  # a quarter of bars on either side
    whole = depth_codes(ramp(), (6, 8), 27)
    assert torch.equal(codes[:, 4:12], whole)
    assert whole[0, 4] <= codes[0, 0] <= whole[0, 3]
    assert len(torch.cat((codes[:, :4], codes[:, 12:]), dim=1).unique()) == 1
    assert depth_codes(ramp(), (6, 8), 27, (2, 0, 3, 1)).unique().tolist() == [0]


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.001, 0.001), (0.999, 0.999, 1.0, 1.0), (-3.0, -3.0, 4.0, 4.0)])
def test_any_box_fits_any_grid(box: tuple[float, float, float, float]) -> None:
    codes = depth_codes(metric_depth(np.random.default_rng(0).uniform(0.5, 8, (13, 17))), (12, 16), 12, box)
    assert codes.shape == (12, 16) and codes.min() >= 0 and codes.max() < 12


def test_flat_map_has_one_code() -> None:
    for value in (0.3, 2.0, 1e8):
        assert depth_codes(metric_depth(np.full((30, 40), value)), (3, 4), 27).unique().tolist() == [0]


def test_scale_free() -> None:
    near, far = ramp(), metric_depth(ramp().values.astype(np.float64) * 1000)
    assert torch.equal(depth_codes(near, (6, 8), 27), depth_codes(far, (6, 8), 27))


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (12, 16), (13, 17), (480, 640)])
def test_any_resolution_fits_any_grid(shape: tuple[int, int]) -> None:
    metres = np.random.default_rng(0).uniform(0.5, 8, shape)
    codes = depth_codes(metric_depth(metres), (12, 16), 12)
    assert codes.shape == (12, 16) and codes.min() >= 0 and codes.max() < 12


def test_coarse_map_is_enlarged_by_the_nearest_pixel() -> None:
    codes = depth_codes(metric_depth(np.array([[1.0, 4.0], [2.0, 3.0]])), (4, 4), 8)
    assert torch.equal(codes, codes[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_inverse_kind_is_taken_as_it_is() -> None:
    metric = ramp()
    inverse = DepthMap((1 / metric.values).astype(np.float32), "inverse", None, metric.valid)
    assert torch.equal(depth_codes(metric, (6, 8), 27), depth_codes(inverse, (6, 8), 27))


def test_input_is_not_modified() -> None:
    depth = ramp()
    values = depth.values.copy()
    depth_codes(depth, (6, 8), 27)
    np.testing.assert_array_equal(depth.values, values)


def test_alignment() -> None:
    depth = ramp(60, 80)
    check_alignment(depth, (480, 640))
    check_alignment(depth, (481, 640))
    check_alignment(depth, (968, 1296))  # ScanNet's colour beside its 640 x 480 depth: 0.4 % apart
    for shape in [(640, 480), (480, 480), (400, 640), (470, 640)]:
        with pytest.raises(DepthError) as error:
            check_alignment(depth, shape)
        assert error.value.code == "depth_shape_mismatch"
