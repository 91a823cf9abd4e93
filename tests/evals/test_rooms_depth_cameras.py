"""The depth camera: noise grows with distance, holes at jumps, nothing beyond its range."""

import numpy as np

from service.roomqa.depth_cameras import FARTHEST_M, sensed_depth


def flat(metres: float) -> np.ndarray:
    return np.full((200, 200), metres, dtype=np.float32)


def test_noise_grows_with_distance() -> None:
    near, far = sensed_depth(flat(1.0), 0), sensed_depth(flat(6.0), 0)
    near_sigma, far_sigma = near[near > 0].std(), far[far > 0].std()
    assert 0.001 < near_sigma < 0.004  # 0.0012 + 0.0019 * 0.36
    assert 0.05 < far_sigma < 0.07  # 0.0012 + 0.0019 * 31.4


def test_some_is_lost_to_reflections_and_everything_beyond_the_range() -> None:
    assert 0.01 < (sensed_depth(flat(2.0), 0) == 0).mean() < 0.25
    assert (sensed_depth(flat(FARTHEST_M + 1), 0) == 0).all()


def test_a_jump_loses_the_pixels_beside_it() -> None:
    depth = flat(2.0)
    depth[:, 100:] = 3.0
    holes = sensed_depth(depth, 0) == 0
    assert holes[:, 98:102].mean() > 0.6
    assert holes[:, :90].mean() < 0.3


def test_a_seed_repeats_and_another_differs() -> None:
    assert np.array_equal(sensed_depth(flat(2.0), 3), sensed_depth(flat(2.0), 3))
    assert not np.array_equal(sensed_depth(flat(2.0), 3), sensed_depth(flat(2.0), 4))
