"""The laws that every method across frames keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.depth.geometry.worlds import look
from tests.tosa.frames.walks import frame_of, merged, moved, poses, walk
from tosa.frames import GEOMETRIC, MERGE_FRAMES, FrameRule, FrameTokens, Kept, merge_frames

BOUNDED = [name for name in MERGE_FRAMES if name != "none"]


def kept(frames: list[FrameTokens], **rule: object) -> Kept:
    found = merge_frames(frames, FrameRule(**rule))  # type: ignore[arg-type]
    assert found is not None
    return found


def chosen(found: Kept) -> list[int]:
    return found.leader.tolist()


@pytest.mark.parametrize("method", MERGE_FRAMES)
def test_one_frame_is_what_it_is_alone(method: str) -> None:
    (frame,) = walk(1)
    found = kept([frame], method=method, budget=49)
    assert torch.equal(found.features, frame.features) and found.runs == (48,)
    assert found.visual_tokens == 49


@pytest.mark.parametrize("method", BOUNDED)
@pytest.mark.parametrize("budget", [2, 36, 144, 287])
@pytest.mark.parametrize("separates", [True, False])
def test_the_budget_is_exact_with_separators_counted(method: str, budget: int, separates: bool) -> None:
    frames = walk(6)
    found = kept(frames, method=method, budget=budget, separates=separates)
    seen_once = kept(frames, method="seen", separates=separates).visual_tokens
    assert found.visual_tokens == (min(budget, seen_once) if method == "seen" else budget)
    assert sum(found.runs) == len(found.features) == len(found.frame)
    assert (found.leader[1:] > found.leader[:-1]).all() and (found.frame[1:] >= found.frame[:-1]).all()


@pytest.mark.parametrize("method", BOUNDED)
def test_every_token_is_part_of_one_that_is_kept_or_dropped(method: str) -> None:
    frames = walk(6)
    found = kept(frames, method=method, budget=60)
    assert found.part_of[found.leader].tolist() == list(range(len(found.leader))), (
        "a leader is part of itself"
    )
    dropped = int((found.part_of < 0).sum())
    merges = method in ("alike", "voxel")
    assert (len(found.part_of) - dropped > len(found.leader)) == merges
    assert int(found.part_of.max()) == len(found.leader) - 1


@pytest.mark.parametrize("method", BOUNDED)
def test_frames_that_fit_the_budget_stay_whole(method: str) -> None:
    frames = [frame_of(look(yaw)) for yaw in (0.0, 1.6, 3.2)]  # no two see the same
    found = kept(frames, method=method, budget=3 * 49)
    assert torch.equal(found.features, torch.cat([frame.features for frame in frames]))
    assert found.runs == (48, 48, 48)


def test_seen_drops_nothing_of_disjoint_frames_and_all_of_a_repeated_one() -> None:
    apart = [frame_of(look(yaw)) for yaw in (0.0, 1.6, 3.2)]
    assert len(kept(apart, method="seen").features) == 3 * 48
    (frame,) = walk(1)
    twice = kept([frame, frame], method="seen")
    again = twice.frame == 1
    assert again.sum() <= int(frame.is_edge.sum())  # edges neither hide nor are hidden
    flat = replace(frame, is_edge=frame.is_edge & False)
    assert len(kept([flat, flat], method="seen").features) == 48


def test_seen_drops_about_what_overlaps() -> None:
    found = kept(walk(6), method="seen")
    assert 48 < len(found.features) < 0.75 * 6 * 48
    assert (found.frame == 0).sum() == 48


@pytest.mark.parametrize("method", BOUNDED)
def test_a_rigid_move_of_the_world_changes_nothing(method: str) -> None:
    frames, by = walk(6), look(1.1, 0.4, (10.0, -3.0, 7.0))
    here, there = (kept(each, method=method, budget=60) for each in (frames, moved(frames, by)))
    assert chosen(here) == chosen(there) and here.runs == there.runs
    assert torch.allclose(here.features, there.features)


@pytest.mark.parametrize("method", BOUNDED)
def test_the_same_frames_give_the_same_answer(method: str) -> None:
    one, other = (kept(walk(5), method=method, budget=60) for _ in range(2))
    assert chosen(one) == chosen(other) and torch.equal(one.features, other.features)


@pytest.mark.parametrize("method", sorted(GEOMETRIC))
def test_poses_matter_to_methods_with_geometry(method: str) -> None:
    frames = walk(6)
    shuffled = [
        replace(one, pose=other.pose) for one, other in zip(frames, frames[3:] + frames[:3], strict=True)
    ]
    assert chosen(kept(frames, method=method, budget=60)) != chosen(kept(shuffled, method=method, budget=60))


@pytest.mark.parametrize("method", ["diverse", "still"])
def test_controls_do_not_look_at_poses(method: str) -> None:
    frames = walk(6)
    without = [frame_of(pose, has_pose=False) for pose in poses(6)]
    assert chosen(kept(frames, method=method, budget=60)) == chosen(kept(without, method=method, budget=60))


@pytest.mark.parametrize("method", BOUNDED)
def test_methods_compose_with_merging_inside_frames(method: str) -> None:
    frames = [merged(frame, 12) for frame in walk(6)]
    found = kept(frames, method=method, budget=40)
    assert found.visual_tokens == 40 and found.features.shape[1] == 16


@pytest.mark.parametrize("method", sorted(GEOMETRIC))
def test_tokens_without_a_place_have_a_quota(method: str) -> None:
    frames = walk(6)
    for frame in frames:
        frame.points[:12] = torch.nan  # a window
    found = kept(frames, method=method, budget=80)
    lost = found.leader % 48 < 12 if method != "seen" else torch.ones(0)
    assert found.visual_tokens == 80
    if method != "seen":
        assert 0.1 < lost.float().mean() <= 0.3


@pytest.mark.parametrize("method", BOUNDED)
def test_frames_without_poses_or_depth_are_still_bounded(method: str) -> None:
    frames = [frame_of(pose, has_pose=False) for pose in poses(6)]
    found = kept(frames, method=method, budget=60)
    assert found.visual_tokens == 60
    assert method == "still" or len(found.frame.unique()) == 6


def test_many_frames_share_separators() -> None:
    frames = [merged(frame, 4) for frame in walk(20, 0.3)]
    found = kept(frames, method="diverse", budget=45)
    assert found.visual_tokens == 45 and len(found.runs) == 5
    assert max(found.runs) <= 2 * min(found.runs) + 4


def test_equal_stamps_keep_the_order_in_which_frames_came() -> None:
    frames = [frame_of(pose, 1.0) for pose in poses(4)]
    found = kept(frames, method="cover", budget=60)
    assert found.frame.tolist() == sorted(found.frame.tolist())
    assert chosen(found) == chosen(kept(walk(4), method="cover", budget=60))


def test_nothing_is_dropped_without_a_rule() -> None:
    found = kept(walk(3))
    assert found.runs == (48, 48, 48)
    assert np.isclose(found.features.sum(), torch.cat([f.features for f in walk(3)]).sum())


def test_no_frames_are_no_tokens() -> None:
    assert merge_frames([], FrameRule("cover", 36)) is None
