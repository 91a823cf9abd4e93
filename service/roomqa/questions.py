"""Questions about a rendered scene, with answers computed from what is visible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.roomqa.arrange import pick
from service.roomqa.render import Frame, rays
from service.roomqa.scene import CAMERA_HEIGHT_M, COLOURS, SHAPES, Scene, Thing

VISIBLE_SHARE = 0.003  # a thing counts from this share of the frame's pixels on
GLIMPSE_SHARE = 0.0003  # between the two it is ambiguous, and no question depends on it
CLEARANCE_M = 0.35  # half the width of the robot
AHEAD_M = 1.5
MOST_COUNTED = 6
SYNONYMS = {"nearer": "closer", "farther": "farther away", "larger": "bigger", "smaller": "smaller"}

Draft = tuple[tuple[str, ...], str]  # phrasings of one question, and its answer


@dataclass(frozen=True)
class Question:
    question: str
    answer: str
    type: str


Asked = TypeVar("Asked", bound=Question)
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class View:
    """A visible thing: centre of its pixels (0..1 across, down), distance in metres, share of all pixels."""

    thing: Thing
    u: float
    v: float
    distance: float
    share: float


@dataclass(frozen=True)
class World:
    """The visible things of a frame: large enough to ask about (`seen`), or too small (`glimpsed`)."""

    scene: Scene
    frame: Frame

    @cached_property
    def views(self) -> list[View]:
        ids, depth = self.frame.ids, self.frame.depth
        size = len(ids)
        rows, columns = np.nonzero(ids >= 0)
        owner, count = ids[rows, columns], len(self.scene.things)
        pixels = np.bincount(owner, minlength=count)
        share = np.maximum(pixels, 1)
        u = np.bincount(owner, columns + 0.5, count) / share / size
        v = np.bincount(owner, rows + 0.5, count) / share / size
        distance = np.bincount(owner, depth[rows, columns], count) / share
        return [
            View(thing, float(u[i]), float(v[i]), float(distance[i]), float(pixels[i]) / size**2)
            for i, thing in enumerate(self.scene.things)
        ]

    @cached_property
    def seen(self) -> list[View]:
        return [view for view in self.views if view.share >= VISIBLE_SHARE]

    @cached_property
    def glimpsed(self) -> list[View]:
        return [view for view in self.views if GLIMPSE_SHARE <= view.share < VISIBLE_SHARE]

    def unique(self, **wanted: str) -> View | None:
        """The one visible thing of this colour and/or shape; None if there is none, or perhaps a second."""
        found = [view for view in self.seen + self.glimpsed if matches(view.thing, **wanted)]
        return found[0] if len(found) == 1 and found[0].share >= VISIBLE_SHARE else None

    def count(self, **wanted: str) -> int | None:
        """Number of visible things of this colour and/or shape; None if a glimpsed one makes it ambiguous."""
        if any(matches(view.thing, **wanted) for view in self.glimpsed):
            return None
        return sum(matches(view.thing, **wanted) for view in self.seen)

    @cached_property
    def named(self) -> list[View]:
        """Things that colour and shape identify uniquely."""
        return [
            view
            for view in self.seen
            if self.unique(colour=view.thing.colour, shape=view.thing.shape) is view
        ]


def matches(thing: Thing, colour: str | None = None, shape: str | None = None) -> bool:
    return colour in (None, thing.colour) and shape in (None, thing.shape)


def plural(noun: str) -> str:
    return "shelves" if noun == "shelf" else f"{noun}s"


def questions(
    scene: Scene, frame: Frame, seed: int, n: int, types: tuple[str, ...] | None = None
) -> list[Question]:
    """Ask up to `n` different questions, their types as even as the scene allows; same seed, same ones."""
    rng = np.random.default_rng((seed, 2))
    world = World(scene, frame)

    def ask(kind: str) -> Question | None:
        draft = TYPES[kind](world, rng)
        return None if draft is None else Question(pick(rng, draft[0]), draft[1], kind)

    return different(rng, tuple(types or TYPES), n, ask)


def different(
    rng: np.random.Generator, types: Sequence[str], n: int, ask: Callable[[str], Asked | None]
) -> list[Asked]:
    """Ask up to `n` questions of different words, the types in turn in an order that is drawn."""
    chosen: dict[str, Asked] = {}
    order = [str(kind) for kind in rng.permutation(list(types))]
    for turn in range(6 * n):
        question = ask(order[turn % len(order)])
        if question is not None:
            chosen.setdefault(question.question, question)
        if len(chosen) == n:
            break
    return list(chosen.values())


def one_known(rng: np.random.Generator, found: Sequence[Choice | None]) -> Choice | None:
    """Draw one of those that are not None, if there is any."""
    known = [one for one in found if one is not None]
    return pick(rng, known) if known else None


def one_present(
    rng: np.random.Generator, present: Sequence[str], known: tuple[str, ...], other: float
) -> str:
    """Draw one of those present, or with probability `other` any known one."""
    return pick(rng, known if not present or rng.random() < other else present)


def with_article(colour: str, shape: str) -> str:
    """Name a thing of a colour and a shape, of which there may be several or none."""
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def _count(world: World, rng: np.random.Generator) -> Draft | None:
    wanted: dict[str, str] = {}
    noun = "objects"
    kind = rng.random()
    if kind < 0.4:
        wanted["shape"] = one_present(rng, [view.thing.shape for view in world.seen], SHAPES, 0.12)
        noun = plural(wanted["shape"])
    elif kind < 0.75:
        wanted["colour"] = one_present(rng, [view.thing.colour for view in world.seen], tuple(COLOURS), 0.12)
        noun = f"{wanted['colour']} objects"
    number = world.count(**wanted)
    if (
        number is None or number > MOST_COUNTED or (number == 1 and rng.random() < 0.45)
    ):  # 1 is by far the most frequent count
        return None
    texts = (
        f"How many {noun} are there?",
        f"How many {noun} do you see?",
        f"How many {noun} are in the room?",
        f"Count the {noun}.",
    )
    return texts, str(number)


def _existence(world: World, rng: np.random.Generator) -> Draft | None:
    colour = one_present(rng, [view.thing.colour for view in world.seen], tuple(COLOURS), 0.3)
    shape = one_present(rng, [view.thing.shape for view in world.seen], SHAPES, 0.3)
    if rng.random() < 0.15 and world.seen:
        thing = pick(rng, world.seen).thing
        colour, shape = thing.colour, thing.shape
    number = world.count(colour=colour, shape=shape)
    if number is None:
        return None
    name = with_article(colour, shape)
    texts = (f"Is there {name}?", f"Do you see {name}?", f"Is {name} in the room?", f"Can you see {name}?")
    return texts, "yes" if number else "no"


def _colour(world: World, rng: np.random.Generator) -> Draft | None:
    view = one_known(rng, [world.unique(shape=shape) for shape in SHAPES])
    if view is None:
        return None
    shape = view.thing.shape
    texts = (
        f"What colour is the {shape}?",
        f"What color is the {shape}?",
        f"Which colour does the {shape} have?",
    )
    return texts, view.thing.colour


def _shape(world: World, rng: np.random.Generator) -> Draft | None:
    view = one_known(rng, [world.unique(colour=colour) for colour in COLOURS])
    if view is None:
        return None
    colour = view.thing.colour
    texts = (
        f"What shape is the {colour} object?",
        f"What is the shape of the {colour} thing?",
        f"What is the {colour} object?",
        f"What is the {colour} thing?",
    )
    return texts, view.thing.shape


def _where(world: World, rng: np.random.Generator) -> Draft | None:
    clear = [view for view in world.named if abs(view.u - 1 / 3) > 0.025 and abs(view.u - 2 / 3) > 0.025]
    view = one_known(rng, clear)
    if view is None:
        return None
    place = ("left", "middle", "right")[int(view.u * 3)]
    name = view.thing.name
    texts = (
        f"Where is the {name}?",
        f"Is the {name} left, middle or right?",
        f"In which part of the picture is the {name}?",
    )
    return texts, place


def _left_right(world: World, rng: np.random.Generator) -> Draft | None:
    pair = _pair(rng, world, lambda a, b: abs(a.u - b.u) > 0.05)
    if pair is None:
        return None
    a, b = pair
    one, other = a.thing.name, b.thing.name
    texts = (
        f"Is the {one} left or right of the {other}?",
        f"Is the {one} to the left or right of the {other}?",
        f"Is the {one} on the left or the right of the {other}?",
    )
    return texts, "left" if a.u < b.u else "right"


def _above_below(world: World, rng: np.random.Generator) -> Draft | None:
    pair = _pair(rng, world, lambda a, b: abs(a.thing.middle - b.thing.middle) > 0.25)
    if pair is None:
        return None
    a, b = pair
    text = f"Is the {a.thing.name} higher or lower than the {b.thing.name}?"
    other = f"Is the {a.thing.name} above or below the {b.thing.name}?"
    higher = a.thing.middle > b.thing.middle
    if rng.random() < 0.5:
        return (text,), "higher" if higher else "lower"
    return (other,), "above" if higher else "below"


def _nearer_farther(world: World, rng: np.random.Generator) -> Draft | None:
    pair = _pair(rng, world, lambda a, b: abs(np.log(a.distance / b.distance)) > 0.14)
    if pair is None:
        return None
    a, b = pair
    word, wanted = ("nearer", min) if rng.random() < 0.5 else ("farther", max)
    answer = wanted(a, b, key=lambda view: view.distance).thing.name
    one, other = a.thing.name, b.thing.name
    return (
        f"Which is {word}, the {one} or the {other}?",
        f"Which one is {SYNONYMS[word]}, the {one} or the {other}?",
    ), answer


def _distance(world: World, rng: np.random.Generator) -> Draft | None:
    view = one_known(rng, [view for view in world.named if abs(view.distance % 1 - 0.5) > 0.1])
    if view is None:
        return None
    metres = round(view.distance)
    name = view.thing.name
    texts = (
        f"How far away is the {name}?",
        f"How many metres away is the {name}?",
        f"How far is the {name}?",
        f"What is the distance to the {name}?",
    )
    return texts, f"{metres} metre{'s' if metres != 1 else ''}"


def _size(world: World, rng: np.random.Generator) -> Draft | None:
    pair = _pair(rng, world, lambda a, b: abs(np.log(a.thing.size / b.thing.size)) > 0.22)
    if pair is None:
        return None
    a, b = pair
    word, wanted = ("larger", max) if rng.random() < 0.5 else ("smaller", min)
    answer = wanted(a, b, key=lambda view: view.thing.size).thing.name
    one, other = a.thing.name, b.thing.name
    texts = (
        f"Which is {word}, the {one} or the {other}?",
        f"Which one is {word}, the {one} or the {other}?",
        f"Which one is {SYNONYMS[word]}, the {one} or the {other}?",
    )
    return texts, answer


def _free_path(world: World, rng: np.random.Generator) -> Draft | None:
    nearest = nearest_ahead(world.frame)
    if abs(nearest - AHEAD_M) < 0.08:
        return None
    texts = (
        f"Is the way ahead free for {AHEAD_M} m?",
        f"Can I drive {AHEAD_M} m straight ahead?",
        f"Can the robot go {AHEAD_M} m forward?",
    )
    free = nearest > AHEAD_M
    if not free and rng.random() < 0.35:  # "blocked" is the more frequent answer
        return None
    return texts, "yes" if free else "no"


def nearest_ahead(frame: Frame) -> float:
    """Metres to the nearest thing in the robot's way; inf if none is seen."""
    stride = 2
    inside = in_the_way(frame, stride)
    if inside.sum() < GLIMPSE_SHARE * inside.size:
        return float("inf")
    return float(frame.depth[::stride, ::stride][inside].min())


def in_the_way(frame: Frame, stride: int = 1) -> NDArray[np.bool_]:
    """Which pixels, every `stride`-th, show a thing straight ahead: 0.7 m wide, up to the camera."""
    across, down = (slopes[::stride] for slopes in rays(len(frame.ids), frame.horizon))
    depth, ids = frame.depth[::stride, ::stride], frame.ids[::stride, ::stride]
    height = CAMERA_HEIGHT_M - down[:, None] * depth
    narrow = np.abs(across[None] * depth) < CLEARANCE_M
    return (ids >= 0) & narrow & (height > 0.03) & (height < CAMERA_HEIGHT_M)


def _pair(
    rng: np.random.Generator, world: World, clear: Callable[[View, View], bool | np.bool_]
) -> tuple[View, View] | None:
    pairs = [(a, b) for a, b in _ordered_pairs(world.named) if clear(a, b)]
    return pick(rng, pairs) if pairs else None


def _ordered_pairs(views: list[View]) -> Iterator[tuple[View, View]]:
    return ((a, b) for a in views for b in views if a is not b)


TYPES: dict[str, Callable[[World, np.random.Generator], Draft | None]] = {
    "count": _count,
    "existence": _existence,
    "colour": _colour,
    "shape": _shape,
    "where": _where,
    "left/right": _left_right,
    "above/below": _above_below,
    "nearer/farther": _nearer_farther,
    "distance": _distance,
    "size": _size,
    "free path": _free_path,
}
