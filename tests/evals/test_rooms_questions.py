"""Questions and answers: true of what is visible, balanced, and frozen where they must be."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from evals.rooms import (
    TEST,
    TRAIN,
    TYPES,
    VALIDATION,
    Question,
    digest,
    examples,
    make_plain_scene,
    make_scene,
    questions,
    render,
)
from evals.rooms.splits import FROZEN
from service.roomqa.questions import VISIBLE_SHARE, World, nearest_ahead
from service.roomqa.scene import COLOURS, HORIZON, SHAPES, SOLIDS, Scene, Thing

ROOM = make_scene(0).room


def _world(*things: Thing) -> World:
    scene = Scene(0, ROOM, things)
    return World(scene, render(scene, 192))


def _ask(world: World, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for seed in range(60):
        for question in questions(world.scene, world.frame, seed, 1, types=(kind,)):
            assert found.setdefault(question.question, question.answer) == question.answer
    return found


RED_CUBE = Thing("cube", "red", 0.7, -0.5, 2.2)
BLUE_BALL = Thing("ball", "blue", 0.5, 1.2, 3.4)


def test_answers_of_a_scene_made_by_hand() -> None:
    world = _world(
        RED_CUBE, BLUE_BALL, replace(BLUE_BALL, shape="cone", colour="green", x=-0.5, z=2.2, base=0.7)
    )
    assert _ask(world, "count")["How many objects are there?"] == "3"
    assert _ask(world, "existence")["Is there a red cube?"] == "yes"
    assert "yes" not in {a for q, a in _ask(world, "existence").items() if "yellow" in q}
    assert _ask(world, "colour")["What colour is the ball?"] == "blue"
    assert _ask(world, "shape")["What shape is the red object?"] == "cube"
    assert _ask(world, "left/right")["Is the red cube left or right of the blue ball?"] == "left"
    assert _ask(world, "above/below")["Is the green cone above or below the red cube?"] == "above"
    assert _ask(world, "nearer/farther")["Which is nearer, the red cube or the blue ball?"] == "red cube"
    assert _ask(world, "size")["Which is smaller, the red cube or the blue ball?"] == "blue ball"
    assert _ask(world, "distance")["How far away is the red cube?"] == "2 metres"
    assert _ask(world, "where")["Where is the blue ball?"] == "right"


@pytest.mark.parametrize(("z", "answer"), [(1.45, "no"), (2.6, "yes")])
def test_the_way_ahead(z: float, answer: str) -> None:
    world = _world(Thing("cube", "red", 0.5, 0.1, z))
    assert set(_ask(world, "free path").values()) == {answer}


def test_things_beside_the_way_do_not_block_it() -> None:
    assert nearest_ahead(_world(Thing("cube", "red", 0.5, 0.9, 1.4)).frame) == float("inf")
    assert nearest_ahead(_world(Thing("cube", "red", 0.5, 0.3, 1.4)).frame) < 1.5


def test_a_hidden_thing_does_not_count() -> None:
    wall = Thing("cube", "red", 0.85, 0.0, 1.8)
    assert len(_world(wall, Thing("ball", "blue", 0.4, 0.0, 3.2)).seen) == 1
    assert len(_world(wall, Thing("ball", "blue", 0.4, 1.6, 3.2)).seen) == 2


def test_no_question_hangs_on_a_glimpsed_thing() -> None:
    worlds = [World(scene, render(scene, 192)) for scene in map(make_scene, range(300))]
    doubtful = [world for world in worlds if world.glimpsed]
    assert len(doubtful) > 10
    for world in doubtful:
        glimpsed = world.glimpsed[0].thing
        assert world.count(shape=glimpsed.shape) is None
        assert world.unique(colour=glimpsed.colour, shape=glimpsed.shape) is None
        asked = questions(world.scene, world.frame, 0, 16)
        assert not any(re.search(rf"How many ({glimpsed.shape}s|objects)", q.question) for q in asked)


def test_things_the_colour_of_what_is_behind_them_are_common() -> None:
    def hides_in_colour(scene: Scene) -> bool:
        pairs = [(a, b) for a in scene.things for b in scene.things if a is not b and a.colour == b.colour]
        return any(b.z > a.z + 0.4 and abs(b.x / b.z - a.x / a.z) < 0.25 for a, b in pairs) or (
            scene.room.far_rgb in {COLOURS[thing.colour] for thing in scene.things}
        )

    share = np.mean([hides_in_colour(make_scene(seed)) for seed in range(400)])
    assert 0.2 < share < 0.8


@pytest.fixture(scope="module")
def test_split() -> list[Question]:
    split = list(examples(TEST, 1000))
    assert digest(split) == FROZEN[1000], "the frozen test split changed: every published accuracy is void"
    return [question for example in split for question in example.questions]


def test_the_test_split_is_frozen_and_even(test_split: list[Question]) -> None:
    counts = Counter(question.type for question in test_split)
    assert counts.total() == 1000 and set(counts) == set(TYPES)
    assert min(counts.values()) >= 85


def test_no_answer_can_be_guessed_too_well(test_split: list[Question]) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in test_split:
        answers[question.type][question.answer] += 1
    for kind, counter in answers.items():
        assert max(counter.values()) / counter.total() <= 0.6, kind


def test_the_digest_sees_a_changed_answer() -> None:
    split = list(examples(VALIDATION, 8, size=96))
    first = split[0]
    changed = replace(first, questions=(replace(first.questions[0], answer="x"), *first.questions[1:]))
    assert digest([changed, *split[1:]]) != digest(split)


def test_splits_are_disjoint() -> None:
    assert TRAIN.stop <= VALIDATION.start and VALIDATION.stop <= TEST.start


def test_scenes_are_as_promised() -> None:
    scenes = [make_scene(seed) for seed in range(300)]
    assert {len(scene.things) for scene in scenes} == set(range(1, 9))
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SHAPES) and len(SHAPES) == 12
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS) and len(COLOURS) == 8
    assert sum(any(thing.base > 0 for thing in scene.things) for scene in scenes) > 30
    assert {scene.room.floor.kind for scene in scenes} == {scene.room.walls.kind for scene in scenes}
    assert 0 < VISIBLE_SHARE < 0.01


def test_sets_of_equal_things_stand_behind_each_other() -> None:
    def in_line(scene: Scene) -> bool:
        pairs = [(a, b) for a in scene.things for b in scene.things if (a.name, a.width) == (b.name, b.width)]
        return any(b.z > a.z + 0.4 and abs(b.x / b.z - a.x / a.z) < 0.2 for a, b in pairs)

    assert 0.2 < np.mean([in_line(make_scene(seed)) for seed in range(400)]) < 0.6


def test_plain_scenes_are_bare() -> None:
    scenes = [make_plain_scene(seed) for seed in range(100)]
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SOLIDS)
    assert all(scene.room.floor == scene.room.walls and scene.room.floor.kind == "plain" for scene in scenes)
    assert {(scene.horizon, scene.has_shadows) for scene in scenes} == {(HORIZON, False)}


def test_questions_repeat_for_a_seed_and_differ_between_seeds() -> None:
    scene = make_scene(3)
    frame = render(scene, 96)
    assert questions(scene, frame, 1, 10) == questions(scene, frame, 1, 10)
    assert questions(scene, frame, 1, 10) != questions(scene, frame, 2, 10)
    assert len({q.question for q in questions(scene, frame, 1, 10)}) == 10
