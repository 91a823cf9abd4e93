"""A memory that is pushed frame by frame: bounded, flat, and the same when it is read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.depth.geometry.worlds import look
from tests.tosa.frames.walks import frame_of, merged, poses, walk
from tosa.frames import MERGE_FRAMES, BudgetTooSmall, EpisodeMemory, FrameRule, FrameTokens, merge_frames
from tosa.frames.memory import _ORIGIN_M, _from_world
from tosa.frames.seen import MOST_CELLS, SeenCells, _doubled

BOUNDED = [name for name in MERGE_FRAMES if name != "none"]


def rule(method: str = "cover", budget: int | None = 60, **more: object) -> FrameRule:
    return FrameRule(method, budget, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", MERGE_FRAMES)
def test_frames_pushed_one_by_one_are_frames_merged_together(method: str) -> None:
    budget = 1000 if method == "none" else 60
    memory = EpisodeMemory(rule(method, budget))
    frames = walk(6)
    for at, frame in enumerate(frames):
        assert memory.push(frame).frame == at
        pushed, together = memory.select(), merge_frames(frames[: at + 1], rule(method, budget))
        assert pushed is not None and together is not None
        assert torch.equal(pushed.leader, together.leader)
        assert torch.equal(pushed.features, together.features) and pushed.runs == together.runs


@pytest.mark.parametrize("method", BOUNDED)
def test_a_memory_is_bounded_whatever_comes(method: str) -> None:
    memory = EpisodeMemory(rule(method, 30), capacity=150)
    most = 0
    for pose in poses(25, 0.25):
        memory.push(frame_of(pose))
        most = max(most, memory.tokens)
    assert most <= 150 and memory.frames == 25
    found = memory.select()
    assert found is not None and found.visual_tokens == 30


def test_a_full_pool_still_covers_everything_that_was_seen() -> None:
    memory, everything = EpisodeMemory(rule("cover", 40), capacity=150), []
    for pose in poses(25, 0.25):
        frame = frame_of(pose)
        memory.push(frame)
        everything.append(
            frame.points.double() @ torch.from_numpy(pose[:3, :3]).T + torch.from_numpy(pose[:3, 3])
        )
    assert memory.cell_m > 0.2  # it was thinned, and cells have doubled
    origin = _from_world(torch.from_numpy(poses(1)[0]))
    seen = torch.cat(everything) @ origin[:3, :3].T + origin[:3, 3]
    held = memory.placed()
    apart = torch.cdist(seen, held.points[held.has_place]).min(dim=1).values
    assert apart.max() <= 3**0.5 * memory.cell_m


@pytest.mark.parametrize("method", MERGE_FRAMES)
def test_a_memory_read_back_goes_on_as_before(method: str) -> None:
    frames, budget = walk(8), 1000 if method == "none" else 60
    whole, first = (EpisodeMemory(rule(method, budget), 450) for _ in range(2))
    for frame in frames[:4]:
        first.push(frame)
    again = EpisodeMemory.of_state(rule(method, budget), first.state(), 450)
    for frame in frames:
        whole.push(frame)
    for frame in frames[4:]:
        again.push(frame)
    one, other = whole.select(), again.select()
    assert one is not None and other is not None
    assert torch.equal(one.leader, other.leader) and torch.equal(one.features, other.features)
    assert again.nbytes == whole.nbytes


def test_none_refuses_what_does_not_fit_and_changes_nothing() -> None:
    memory = EpisodeMemory(rule("none", 2 * 49))
    for frame in walk(2):
        memory.push(frame)
    with pytest.raises(BudgetTooSmall, match="147 visual tokens do not fit a budget of 98"):
        memory.push(walk(3)[2])
    found = memory.select()
    assert memory.frames == 2 and found is not None and found.visual_tokens == 98


def box_frames() -> tuple[FrameTokens, FrameTokens, torch.Tensor]:
    """Return a frame with a thing a metre before the wall, the same without it, and the thing's patches."""
    bare = frame_of(look(0.0))
    points, features = bare.points.clone(), bare.features.clone()
    thing = torch.zeros(6, 8, dtype=torch.bool)
    thing[1:4, 1:4] = True
    thing = thing.flatten()
    points[thing] *= 0.6
    features[thing] = -features[thing]
    return replace(bare, features=features, points=points, is_edge=thing & False), bare, thing


def test_what_was_taken_away_makes_place_for_what_is_behind_it() -> None:
    full, bare, thing = box_frames()
    memory = EpisodeMemory(rule("seen", None))
    memory.push(full)
    assert memory.push(bare).admitted >= int(thing.sum())  # the wall behind it
    assert memory.push(full).admitted > 0  # and the thing, when it comes back
    found = EpisodeMemory(rule("seen", 50))
    found.push(full)
    found.push(bare)
    kept = found.select()
    assert kept is not None
    gone = full.features[18]  # in the middle of the thing
    assert not (kept.features == gone).all(dim=1).any()


def test_what_was_seen_long_ago_may_be_looked_at_anew() -> None:
    first, later = frame_of(look(0.0), 0.0), frame_of(look(0.0), 100.0)
    for age, is_new in ((200.0, False), (50.0, True)):
        memory = EpisodeMemory(rule("seen", None, max_age_s=age))
        memory.push(first)
        assert (memory.push(later).admitted == 48) is is_new


def test_two_sides_of_a_thin_wall_are_two_places() -> None:
    wall = frame_of(look(0.0))
    behind = look(np.pi, at=(0.0, 0.0, 5.0))  # from the other side, at the same distance
    points = wall.points.clone()
    points[:, 2] = 2.5
    flat = [
        replace(wall, points=points, is_edge=wall.is_edge & False, pose=pose)
        for pose in (torch.from_numpy(look(0.0)), torch.from_numpy(behind))
    ]
    memory = EpisodeMemory(rule("seen", None))
    memory.push(flat[0])
    assert memory.push(flat[1]).admitted == 48
    assert memory.push(flat[0]).admitted == 0


def test_a_loop_closure_puts_everything_in_its_new_place() -> None:
    true, drifted = poses(6), poses(6)
    for at, pose in enumerate(drifted):
        pose[:3, 3] += 0.1 * at
    frames = [frame_of(pose) for pose in true]
    memory = EpisodeMemory(rule("cover", 60))
    for frame, pose in zip(frames, drifted, strict=True):
        memory.push(replace(frame, pose=torch.from_numpy(pose)))
    memory.move([(at, torch.from_numpy(pose)) for at, pose in enumerate(true)])
    closed, straight = memory.select(), merge_frames(frames, rule("cover", 60))
    assert closed is not None and straight is not None
    assert torch.equal(closed.leader, straight.leader)


def test_seen_cells_are_found_again_after_a_loop_closure() -> None:
    frames = walk(3)
    memory = EpisodeMemory(rule("seen", None))
    for frame in frames:
        memory.push(frame)
    by = torch.from_numpy(look(0.0, at=(1.0, 0.5, -2.0)))
    memory.move([(at, by @ frame.pose) for at, frame in enumerate(frames) if frame.pose is not None])
    assert frames[2].pose is not None
    last = replace(frames[2], pose=by @ frames[2].pose)
    assert memory.push(last).admitted <= 12  # cells lie otherwise about the points that are remembered


def test_cells_nest_when_they_double() -> None:
    cells = SeenCells(rule("seen"))
    points = (torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5).double() * 20
    for depth in (1.0, 9.0):
        keys = cells._keys(points, torch.full((500,), depth))
        cells.doublings = 1
        assert torch.equal(_doubled(keys), cells._keys(points, torch.full((500,), depth)))
        cells.doublings = 0


def test_too_many_cells_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tosa.frames.seen.MOST_CELLS", 60)
    memory = EpisodeMemory(rule("seen", None))
    for frame in walk(6):
        memory.push(frame)
    assert MOST_CELLS > 60 and memory._seen.doublings > 0 and len(memory._seen) <= 60
    assert memory.push(walk(1)[0]).admitted < 48


def test_places_of_merged_tokens_are_those_of_their_patches() -> None:
    frame = merged(walk(1)[0], 12)
    memory = EpisodeMemory(rule("cover"))
    memory.push(frame)
    held = memory.placed()
    own = frame.points.double() + torch.tensor(_ORIGIN_M)
    for token in range(12):
        members = own[frame.source == token]
        assert (torch.cdist(held.points[token][None], members) < 2e-4).any()


def test_counts_by_frame() -> None:
    memory = EpisodeMemory(rule("none", None))
    memory.push(walk(1)[0])
    memory.push(frame_of(look(1.0), has_pose=False))
    assert memory.held_by_frame() == [(0, 48, 48), (1, 48, 0)]
    assert memory.tokens == 96 and memory.nbytes > 96 * 16 * 4


@pytest.mark.parametrize("method", BOUNDED)
def test_a_frame_of_which_nothing_is_held_leaves_nothing_behind(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tosa.frames.table._FEWEST", 4)
    memory, frames = EpisodeMemory(rule(method, 30), capacity=100), walk(6)
    held, most = [], 0
    for at in range(120):
        memory.push(replace(frames[at % 6], timestamp=float(at)))
        held.append(memory.nbytes)
        needed = {frame for frame, _, _ in memory.held_by_frame()} | set(memory._seen.frames.tolist())
        most = max(most, len(needed))
        assert memory.remembered <= max(4, 2 * most) + 1
    assert memory.frames == 120 and memory.latest == 119
    assert max(held[60:]) - max(held[:60]) < 30 * 144  # of 60 frames


def test_new_poses_of_frames_that_were_forgotten_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tosa.frames.table._FEWEST", 2)
    memory, frames = EpisodeMemory(rule("seen", None)), walk(1)
    for at in range(6):
        memory.push(replace(frames[0], timestamp=float(at)))  # seen before, from the second on
    assert memory.remembered <= 3
    before = memory.placed().points
    memory.move([(4, torch.from_numpy(look(1.0))), (5, torch.from_numpy(look(2.0)))])
    assert torch.equal(memory.placed().points, before)
    memory.move([(0, torch.from_numpy(look(1.0)))])
    assert not torch.equal(memory.placed().points, before)
    again = EpisodeMemory.of_state(rule("seen", None), memory.state())
    assert (again.frames, again.latest, again.nbytes) == (6, 5.0, memory.nbytes)
