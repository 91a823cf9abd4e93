"""Purity by hand, and the control that shuffled depth is really another frame's."""

import numpy as np

from evals.rooms import VALIDATION, examples
from evals.rooms.depth_sources import shuffled_depth, true_depth
from evals.rooms.purity import patch_ids, purity
from service.roomqa.render import Frame


def test_purity_by_hand() -> None:
    ids = np.array([5, 5, 7, 7])
    assert purity(np.array([0, 0, 1, 1]), ids) == 1.0
    assert purity(np.array([0, 0, 0, 1]), ids) == 0.75
    assert purity(np.array([0, 1, 0, 1]), ids) == 0.5
    assert purity(np.array([0, 0, -1, 1]), ids) == 0.75  # what was dropped stands for nothing


def test_patch_ids_takes_what_a_patch_mostly_shows() -> None:
    ids = np.full((4, 6), -3, dtype=np.int16)
    ids[:2, :2] = [[4, 4], [4, -3]]
    frame = Frame(np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32), ids)
    assert patch_ids(frame, (2, 3)).tolist() == [4, -3, -3, -3, -3, -3]


def test_shuffled_depth_is_never_the_frames_own() -> None:
    split = list(examples(VALIDATION, 12))
    shuffled = shuffled_depth(split)
    for example in split:
        assert not np.array_equal(shuffled(example).values, true_depth(example).values)
