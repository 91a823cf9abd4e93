"""Questions about a whole walk, with answers computed from what its frames show.

A thing was seen if it covers 0.3 % of one of the eight frames at least that stand for the walk, as in single
scenes. One that did not, but covers 0.03 % of any of the sixteen, is ambiguous, and no question depends on
it: so the answers are the same whether eight frames are shown or all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.roomqa.arrange import pick
from service.roomqa.questions import (
    GLIMPSE_SHARE,
    MOST_COUNTED,
    VISIBLE_SHARE,
    Question,
    different,
    matches,
    one_known,
    one_present,
    plural,
    with_article,
)
from service.roomqa.render import Frame
from service.roomqa.scene import COLOURS, SHAPES, Thing
from service.roomqa.walks.world import EIGHT, Walk

THIRDS = ("first", "middle", "last")
RARITY = (1, 3, 9)
"""How much rather each third is asked about: few things come into view late only."""
CLEAR_U = 0.05
"""Of the picture's width, by which things stand beside each other."""
CLEAR_RATIO = 0.2
"""Of the logarithm of two distances that are compared."""


@dataclass(frozen=True)
class WalkQuestion(Question):
    """A question about a walk. plain: the same in words of single scenes, None where they have none."""

    plain: str | None = None


@dataclass(frozen=True)
class Draft:
    """The phrasings of a question, its answer, and the question in words of single scenes."""

    texts: tuple[str, ...]
    answer: str
    plain: str | None = None


@dataclass(frozen=True)
class Sights:
    """What was seen on a walk. shares [F, n]: of the pixels of each frame, how many show each thing.

    first_u [n]: the middle of each thing across the first frame, from 0 to 1.
    """

    walk: Walk
    shares: NDArray[np.float64]
    first_u: NDArray[np.float64] = field(repr=False)

    @cached_property
    def seen(self) -> list[int]:
        """Return the things that were seen."""
        return np.nonzero(self.shares[list(EIGHT)].max(axis=0) >= VISIBLE_SHARE)[0].tolist()

    @cached_property
    def glimpsed(self) -> list[int]:
        """Return the things that were perhaps seen."""
        perhaps = np.nonzero(self.shares.max(axis=0) >= GLIMPSE_SHARE)[0].tolist()
        return [at for at in perhaps if at not in self.seen]

    def count(self, **wanted: str) -> int | None:
        """Return how many things of a colour and/or shape were seen, None if it is ambiguous."""
        if any(matches(self.walk.things[at], **wanted) for at in self.glimpsed):
            return None
        return sum(matches(self.walk.things[at], **wanted) for at in self.seen)

    def only(self, **wanted: str) -> int | None:
        """Return the one thing of a colour and/or shape that was seen."""
        found = [at for at in self.seen if matches(self.walk.things[at], **wanted)]
        return found[0] if len(found) == 1 and self.count(**wanted) == 1 else None

    @cached_property
    def named(self) -> list[int]:
        """Return the things that colour and shape identify."""
        things = self.walk.things
        return [at for at in self.seen if self.only(colour=things[at].colour, shape=things[at].shape) == at]

    def thing(self, at: int) -> Thing:
        return self.walk.things[at]


def sights(walk: Walk, frames: Sequence[Frame]) -> Sights:
    """Measure what the frames of a walk show of its things."""
    number = len(walk.things)
    shares = np.zeros((len(frames), number))
    for at, frame in enumerate(frames):
        ids = frame.ids[frame.ids >= 0]
        shares[at] = np.bincount(ids, minlength=number) / frame.ids.size
    rows, columns = np.nonzero(frames[0].ids >= 0)
    owner = frames[0].ids[rows, columns]
    total = np.bincount(owner, columns + 0.5, number) / frames[0].ids.shape[1]
    return Sights(walk, shares, total / np.maximum(np.bincount(owner, minlength=number), 1))


def walk_questions(seen: Sights, seed: int, n: int, types: Sequence[str] | None = None) -> list[WalkQuestion]:
    """Ask up to `n` different questions, their types as even as the walk allows; same seed, same ones."""
    rng = np.random.default_rng((seed, 8))

    def ask(kind: str) -> WalkQuestion | None:
        draft = WALK_TYPES[kind](seen, rng)
        if draft is None:
            return None
        return WalkQuestion(pick(rng, draft.texts), draft.answer, kind, draft.plain)

    return different(rng, tuple(types or WALK_TYPES), n, ask)


def _count(seen: Sights, rng: np.random.Generator) -> Draft | None:
    wanted: dict[str, str] = {}
    noun, kind = "objects", rng.random()
    if kind < 0.55:
        wanted["shape"] = one_present(rng, [seen.thing(at).shape for at in seen.seen], SHAPES, 0.1)
        noun = plural(wanted["shape"])
    elif kind < 0.85:
        wanted["colour"] = one_present(rng, [seen.thing(at).colour for at in seen.seen], tuple(COLOURS), 0.1)
        noun = f"{wanted['colour']} objects"
    number = seen.count(**wanted)
    if number is None or number > MOST_COUNTED or (number == 1 and rng.random() < 0.45):
        return None
    texts = (
        f"How many {noun} did you see?",
        f"How many {noun} have you seen?",
        f"How many different {noun} were there?",
    )
    return Draft(texts, str(number), f"How many {noun} are there?")


def _existence(seen: Sights, rng: np.random.Generator) -> Draft | None:
    colour = one_present(rng, [seen.thing(at).colour for at in seen.seen], tuple(COLOURS), 0.2)
    shape = one_present(rng, [seen.thing(at).shape for at in seen.seen], SHAPES, 0.2)
    if rng.random() < 0.25 and seen.seen:
        thing = seen.thing(pick(rng, seen.seen))
        colour, shape = thing.colour, thing.shape
    number = seen.count(colour=colour, shape=shape)
    if number is None:
        return None
    name = with_article(colour, shape)
    texts = (f"Was there {name}?", f"Did you see {name}?", f"Have you seen {name}?")
    return Draft(texts, "yes" if number else "no", f"Is there {name}?")


def _colour(seen: Sights, rng: np.random.Generator) -> Draft | None:
    at = one_known(rng, [seen.only(shape=shape) for shape in SHAPES])
    if at is None:
        return None
    thing = seen.thing(at)
    texts = (f"What colour was the {thing.shape}?", f"Which colour did the {thing.shape} have?")
    return Draft(texts, thing.colour, f"What colour is the {thing.shape}?")


def _entered(seen: Sights, rng: np.random.Generator) -> Draft | None:
    """Ask what stood beside the second from the left or right, of what the first frame shows."""
    shares = seen.shares[0]
    shown = np.nonzero(shares >= VISIBLE_SHARE)[0]
    if len(shown) < 2 or ((shares >= GLIMPSE_SHARE) & (shares < VISIBLE_SHARE)).any():
        return None
    order = shown[np.argsort(seen.first_u[shown])]
    side = "left" if rng.random() < 0.5 else "right"
    beside, second = (order[0], order[1]) if side == "left" else (order[-1], order[-2])
    if abs(seen.first_u[beside] - seen.first_u[second]) < CLEAR_U or int(second) not in seen.named:
        return None
    name = seen.thing(int(second)).name
    texts = (
        f"What was {side} of the {name} when you entered?",
        f"What stood {side} of the {name} when you came in?",
    )
    return Draft(texts, seen.thing(int(beside)).name)


def _nearer(seen: Sights, rng: np.random.Generator) -> Draft | None:
    """Compare distances along the floor from where the last frame was taken."""
    last, things = seen.walk.cameras[-1], seen.walk.things_at(len(seen.walk.cameras) - 1)
    far = {at: math.hypot(things[at].x - last.x, things[at].z - last.z) for at in seen.named}
    pairs = [(a, b) for a in far for b in far if a != b and abs(math.log(far[a] / far[b])) > CLEAR_RATIO]
    if not pairs:
        return None
    a, b = pick(rng, pairs)
    one, other = things[a].name, things[b].name
    texts = (
        f"Which is nearer to where you stand now, the {one} or the {other}?",
        f"Which is closer to you now, the {one} or the {other}?",
    )
    return Draft(texts, one if far[a] < far[b] else other)


def _when(seen: Sights, rng: np.random.Generator) -> Draft | None:
    """Ask in which third of the walk a thing was in view, of those that no other third shows."""
    frames = len(seen.shares)
    found: dict[int, list[int]] = {}
    for at in seen.named:
        thirds = set((np.nonzero(seen.shares[:, at] >= GLIMPSE_SHARE)[0] * 3 // frames).tolist())
        if len(thirds) == 1:
            found.setdefault(thirds.pop(), []).append(at)
    if not found:
        return None
    offered = [third for third in sorted(found) for _ in range(RARITY[third])]
    third = pick(rng, offered)
    at = pick(rng, found[third])
    name = seen.thing(at).name
    texts = (f"When did you see the {name}?", f"When was the {name} in view?")
    return Draft(texts, THIRDS[third])


WALK_TYPES: dict[str, Callable[[Sights, np.random.Generator], Draft | None]] = {
    "count": _count,
    "existence": _existence,
    "colour": _colour,
    "entered": _entered,
    "nearer now": _nearer,
    "when": _when,
}
