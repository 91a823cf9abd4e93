"""Walks: frames agree with their poses, questions with what frames show, and the test split is frozen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from depth.depth_map import metric_depth
from depth.geometry import Agreement, Intrinsics, read_intrinsics, sampled
from evals.rooms import TEST, TRAIN, VALIDATION, Frame
from evals.rooms.walks import (
    EIGHT,
    FRAMES,
    TEST_WALKS,
    TRAIN_WALKS,
    VALIDATION_WALKS,
    Sights,
    Walk,
    make_walk,
    render_view,
    sights,
    walk_examples,
    walk_questions,
)
from evals.rooms.walks.splits import FROZEN_WALKS, walk_digest
from service.roomqa.questions import GLIMPSE_SHARE, VISIBLE_SHARE
from service.roomqa.render import FLOOR, WALL
from service.roomqa.scene import Thing
from service.roomqa.walks.arrange import CLEAR_M, fits, may_see
from service.roomqa.walks.drift import drifted
from service.roomqa.walks.world import Camera, House, intrinsics

Indices = NDArray[np.intp]
SIZE = 96
ROUTES = {"around": 0, "turning": 0, "through": 0}


def seeds_of_every_route() -> dict[str, int]:
    found: dict[str, int] = {}
    for seed in TRAIN_WALKS[:60]:
        found.setdefault(make_walk(seed).kind, seed)
    return found


SEEDS = seeds_of_every_route()


def points_of(view: Frame, camera: Intrinsics, rows: Indices, columns: Indices) -> NDArray[np.float64]:
    z = view.depth[rows, columns].astype(float)
    return camera.points(columns.astype(float), rows.astype(float), z)


def test_there_is_every_route() -> None:
    assert SEEDS.keys() == ROUTES.keys()


@pytest.mark.parametrize("kind", sorted(ROUTES))
def test_frames_agree_by_their_poses_in_opencv_axes_and_by_no_others(kind: str) -> None:
    walk = make_walk(SEEDS[kind])
    camera, notes = read_intrinsics(intrinsics(SIZE), (SIZE, SIZE))
    assert not notes
    agreement, opengl = Agreement("opencv"), Agreement("opengl")
    before = None
    for at in range(0, FRAMES, 2):
        view, pose = render_view(walk, at, SIZE), walk.cameras[at].pose
        samples = [
            sampled(metric_depth(view.depth), camera, one)
            for one in (pose, pose @ np.diag([1.0, -1.0, -1.0, 1.0]))
        ]
        assert samples[0] is not None and samples[1] is not None
        if before is not None:
            agreement.add(samples[0], before[0])
            opengl.add(samples[1], before[1])
        before = samples[0], samples[1]
    assert agreement.mean is not None and agreement.mean > 0.5 and not list(agreement.doubts())
    assert [note.code for note in opengl.doubts()] == ["maybe_other_convention"]


def test_a_thing_is_where_its_pixels_are() -> None:
    walk = make_walk(SEEDS["around"])
    camera, _ = read_intrinsics(intrinsics(SIZE), (SIZE, SIZE))
    checked = 0
    for at in (0, 7, 15):
        view, pose = render_view(walk, at, SIZE), walk.cameras[at].pose
        rows, columns = np.nonzero(view.ids >= 0)
        points = points_of(view, camera, rows, columns)
        world = points @ pose[:3, :3].T + pose[:3, 3]
        for point, index in zip(world, view.ids[rows, columns], strict=True):
            thing = walk.things[index]
            assert np.hypot(point[0] - thing.x, point[2] - thing.z) < thing.radius + 0.02
            assert thing.base - 0.02 < -point[1] < thing.top + 0.02
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("kind", sorted(ROUTES))
def test_floors_and_walls_are_where_the_house_has_them(kind: str) -> None:
    walk = make_walk(SEEDS[kind])
    camera, _ = read_intrinsics(intrinsics(SIZE), (SIZE, SIZE))
    room, house = walk.house.room, walk.house
    for at in (0, 6, 12):
        view, pose = render_view(walk, at, SIZE), walk.cameras[at].pose
        rows, columns = np.nonzero(view.ids == FLOOR)
        points = points_of(view, camera, rows, columns)
        assert np.abs((points @ pose[:3, :3].T + pose[:3, 3])[:, 1]).max() < 1e-3
        rows, columns = np.nonzero(view.ids == WALL)
        points = points_of(view, camera, rows, columns)
        x, _, z = (points @ pose[:3, :3].T + pose[:3, 3]).T
        off = [abs(x + room.left), abs(x - room.right), abs(z - house.near), abs(z - room.far)]
        off += [np.abs(z - low) for wall in house.inner for low in wall[2:]]
        off += [np.abs(x - low) for wall in house.inner for low in wall[:2]]
        assert np.min(off, axis=0).max() < 1e-3


def test_walls_hide_what_is_behind_them() -> None:
    walk = make_walk(SEEDS["through"])
    (left, _) = walk.house.inner
    behind = Thing("cube", "red", 0.6, (left[0] + left[1]) / 2, left[3] + 1.0)
    before = Camera(behind.x, left[2] - 1.0, 0.0)
    hidden = replace(walk, things=(behind,), cameras=(before,))
    view = render_view(hidden, 0, SIZE)
    middle = view.ids[SIZE // 2 - 8, SIZE // 2 - 4 : SIZE // 2 + 4]
    assert (view.ids < 0).all() and (middle == WALL).all()
    house = replace(walk.house, inner=())
    assert (render_view(replace(hidden, house=house), 0, SIZE).ids == 0).any()


@pytest.mark.parametrize("seed", TRAIN_WALKS[:4])
def test_things_stand_beside_the_route(seed: int) -> None:
    walk = make_walk(seed)
    assert len(walk.cameras) == FRAMES and len(walk.things) >= 3
    for thing in walk.things:
        assert all(
            np.hypot(thing.x - one.x, thing.z - one.z) > thing.radius + CLEAR_M for one in walk.cameras
        )
    assert not fits(replace(walk.things[0], x=walk.cameras[0].x, z=walk.cameras[0].z), *_of(walk))


def _of(walk: Walk) -> tuple[House, tuple[Camera, ...], tuple[Thing, ...]]:
    return walk.house, walk.cameras, ()


def test_a_thing_is_moved_while_nobody_looks() -> None:
    walks = [make_walk(seed, moves=True) for seed in TRAIN_WALKS[:12]]
    moved = [walk for walk in walks if walk.moves]
    assert moved
    for walk in moved:
        (move,) = walk.moves
        old, new = walk.things_at(move.frame - 1)[move.thing], walk.things_at(move.frame)[move.thing]
        assert (old.x, old.z) != (new.x, new.z) == (move.x, move.z)
        for camera in walk.cameras[move.frame - 1 : move.frame + 1]:
            assert not may_see(camera, old) and not may_see(camera, new)
        assert make_walk(walk.seed).things == walk.things


# What follows is a walk made by hand: shares of pixels of each thing in each of sixteen frames.


def by_hand(things: list[Thing], shown: list[dict[int, float]], first_u: list[float]) -> Sights:
    walk = replace(make_walk(SEEDS["around"]), things=tuple(things))
    shares = np.zeros((FRAMES, len(things)))
    for thing, frames in enumerate(shown):
        for frame, share in frames.items():
            shares[frame, thing] = share
    return Sights(walk, shares, np.array(first_u))


def ask(seen: Sights, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for seed in range(80):
        for question in walk_questions(seen, seed, 1, (kind,)):
            assert found.setdefault(question.question, question.answer) == question.answer
            if question.plain is not None:
                assert found.setdefault(question.plain, question.answer) == question.answer
    return found


RED_CHAIR = Thing("chair", "red", 0.5, 0.0, 3.0)
BLUE_CHAIR = Thing("chair", "blue", 0.5, 1.0, 3.0)
GREEN_LAMP = Thing("lamp", "green", 0.4, -1.0, 2.0)
CLEAR, SMALL = 2 * VISIBLE_SHARE, 2 * GLIMPSE_SHARE


def test_a_thing_that_is_seen_again_counts_once() -> None:
    again = dict.fromkeys(range(FRAMES), CLEAR)
    seen = by_hand([RED_CHAIR, BLUE_CHAIR, GREEN_LAMP], [again, {2: CLEAR}, {15: CLEAR}], [0.2, 0, 0])
    answers = ask(seen, "count")
    assert answers["How many chairs did you see?"] == answers["How many chairs are there?"] == "2"
    assert answers["How many objects have you seen?"] == "3"
    assert ask(seen, "existence")["Was there a green lamp?"] == "yes"
    assert ask(seen, "colour")["What colour was the lamp?"] == "green"


def test_nothing_depends_on_what_was_perhaps_seen() -> None:
    glimpsed = by_hand([RED_CHAIR, BLUE_CHAIR], [{0: CLEAR}, {5: SMALL}], [0.2, 0])
    only_between = by_hand([RED_CHAIR, BLUE_CHAIR], [{0: CLEAR}, {5: CLEAR}], [0.2, 0])
    for seen in (glimpsed, only_between):  # frame 5 is none of the eight
        assert 5 not in EIGHT and seen.glimpsed == [1]
        assert not any("chairs" in one or "many objects" in one for one in ask(seen, "count"))
        assert "Was there a blue chair?" not in ask(seen, "existence")
        assert not ask(seen, "colour")


def test_when_something_was_seen() -> None:
    things = [RED_CHAIR, BLUE_CHAIR, GREEN_LAMP]
    seen = by_hand(things, [{0: CLEAR, 4: CLEAR}, {9: CLEAR}, {13: CLEAR, 2: SMALL}], [0.2, 0, 0])
    answers = ask(seen, "when")
    assert answers["When did you see the red chair?"] == "first"
    assert answers["When was the blue chair in view?"] == "middle"
    assert not any("lamp" in question for question in answers)  # a glimpse of it in another third


def test_what_stood_beside_it_when_the_camera_came_in() -> None:
    frames = [{0: CLEAR}] * 3
    answers = ask(by_hand([RED_CHAIR, BLUE_CHAIR, GREEN_LAMP], frames, [0.5, 0.8, 0.2]), "entered")
    assert answers["What was left of the red chair when you entered?"] == "green lamp"
    assert answers["What stood right of the red chair when you came in?"] == "blue chair"
    close = by_hand([RED_CHAIR, BLUE_CHAIR], frames[:2], [0.5, 0.52])
    assert not ask(close, "entered")


def test_what_is_nearer_to_where_the_walk_ended() -> None:
    seen = by_hand([RED_CHAIR, GREEN_LAMP], [{0: CLEAR}] * 2, [0.5, 0.2])
    last = seen.walk.cameras[-1]
    near, far = replace(RED_CHAIR, x=last.x + 1, z=last.z), replace(GREEN_LAMP, x=last.x, z=last.z - 2)
    placed = replace(seen, walk=replace(seen.walk, things=(near, far)))
    assert set(ask(placed, "nearer now").values()) == {"red chair"}


def test_shares_are_those_of_the_pixels() -> None:
    walk = make_walk(SEEDS["turning"])
    frames = [render_view(walk, at, SIZE) for at in range(FRAMES)]
    seen = sights(walk, frames)
    for at, frame in enumerate(frames):
        for thing in range(len(walk.things)):
            assert seen.shares[at, thing] == (frame.ids == thing).mean()


def test_the_splits_are_disjoint_and_far_from_what_may_not_be_used() -> None:
    every = [TRAIN, VALIDATION, TEST, TRAIN_WALKS, VALIDATION_WALKS, TEST_WALKS]
    ordered = sorted(every, key=lambda one: one.start)
    assert all(one.stop <= other.start for one, other in pairwise(ordered))
    assert max(one.stop for one in every) <= 77_000_000


def test_the_first_walks_of_the_test_split_are_frozen() -> None:
    split = list(walk_examples(TEST_WALKS, 2))
    assert walk_digest(split) == FROZEN_WALKS[2]


@pytest.mark.long
def test_the_test_split_is_frozen() -> None:
    assert walk_digest(list(walk_examples(TEST_WALKS, 64))) == FROZEN_WALKS[64]


def test_drift_is_as_large_as_asked_on_average_and_grows() -> None:
    poses = [np.eye(4)] * FRAMES
    ends, halves = [], []
    for seed in range(400):
        moved = drifted(poses, 0.1, seed)
        assert (moved[0] == np.eye(4)).all() and all((one[:3, :3] == np.eye(3)).all() for one in moved)
        ends.append(np.linalg.norm(moved[-1][:3, 3]))
        halves.append(np.linalg.norm(moved[7][:3, 3]))
    assert np.sqrt(np.mean(np.square(ends))) == pytest.approx(0.1, rel=0.1)
    assert np.mean(halves) < 0.8 * np.mean(ends)
