"""Symbols: the output of an ideal tower for every patch of a RoomQA frame.

Each patch has one row of `WIDTH` numbers: what it shows, where it is, and facts about the thing it belongs
to. Stage 1 trains the language model on these rows, stage 2 trains the tower to predict them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.roomqa.questions import AHEAD_M, VISIBLE_SHARE, World, in_the_way
from service.roomqa.render import CEILING, FLOOR, Frame
from service.roomqa.scene import COLOURS, SHAPES, Scene

BACKGROUND = slice(0, 3)  # shares of floor, wall and ceiling in the patch
THING = slice(3, 4)  # 1 where the patch belongs to a thing
COLOUR = slice(4, 4 + len(COLOURS))
SHAPE = slice(COLOUR.stop, COLOUR.stop + len(SHAPES))
PLACE = slice(SHAPE.stop, SHAPE.stop + 3)  # x, y of the patch in -1..1, log of its mean depth
# Facts of the thing: u, v, log distance, height of its middle, log size, log share of pixels, ahead.
FACTS = slice(PLACE.stop, PLACE.stop + 7)
# 1 in exactly one patch of every thing that counts, the one nearest its visible centre.
ANCHOR = slice(FACTS.stop, FACTS.stop + 1)
WIDTH = ANCHOR.stop
LEAST_SHARE = 0.03  # minimum share of a patch's pixels for it to belong to a thing

Array = NDArray[np.float32]


def patch_symbols(scene: Scene, frame: Frame, grid: int) -> Array:
    """Describe each patch of a `grid` x `grid` partition of the frame -> [grid * grid, WIDTH] float32."""
    shares, log_depth = _patch_statistics(frame, grid, len(scene.things))
    rows = np.zeros((grid * grid, WIDTH), np.float32)
    rows[:, BACKGROUND] = shares[:, :3]
    axis = (np.arange(grid, dtype=np.float32) + 0.5) / grid * 2 - 1
    rows[:, PLACE] = np.stack([np.tile(axis, grid), np.repeat(axis, grid), log_depth], axis=1)
    if not scene.things:
        return rows
    things = shares[:, 3:]
    owner = np.where(things.max(1) >= LEAST_SHARE, things.argmax(1), -1)
    described = _describe(scene, frame)
    anchors = _anchors(owner, things, described, grid)
    owner[list(anchors.values())] = list(anchors)
    belongs = np.flatnonzero(owner >= 0)
    for field in (THING, COLOUR, SHAPE, FACTS):
        rows[belongs, field] = described[owner[belongs], field]
    rows[list(anchors.values()), ANCHOR] = 1
    return rows


def _patch_statistics(frame: Frame, grid: int, n_things: int) -> tuple[Array, Array]:
    """Share of each surface and thing in every patch [P, 3 + n], and the log of its mean depth [P]."""
    size = len(frame.ids)
    patch = size // grid
    line = np.arange(size) // patch
    cell = line[:, None] * grid + line[None, :]
    kinds = 3 + n_things
    flat = (cell * kinds + (frame.ids - FLOOR)).ravel()
    counts = np.bincount(flat, minlength=grid * grid * kinds).reshape(grid * grid, kinds)
    depth = frame.depth.reshape(grid, patch, grid, patch).mean((1, 3)).ravel()
    return (counts / patch**2).astype(np.float32), np.log(depth)


def _describe(scene: Scene, frame: Frame) -> Array:
    """One row per thing, laid out as a patch's row."""
    rows = np.zeros((len(scene.things), WIDTH), np.float32)
    ahead = _ahead(frame, len(scene.things))
    for index, view in enumerate(World(scene, frame).views):
        thing = view.thing
        rows[index, THING] = 1
        rows[index, COLOUR.start + list(COLOURS).index(thing.colour)] = 1
        rows[index, SHAPE.start + SHAPES.index(thing.shape)] = 1
        distance = np.log(max(view.distance, 0.1))
        share = np.log(max(view.share, 1e-5) / VISIBLE_SHARE) / 3
        facts = (
            2 * view.u - 1,
            2 * view.v - 1,
            distance,
            thing.middle,
            2 * np.log(thing.size),
            share,
            ahead[index],
        )
        rows[index, FACTS] = facts
        rows[index, ANCHOR] = view.share >= VISIBLE_SHARE
    return rows


def _ahead(frame: Frame, n_things: int) -> Array:
    """How far each thing is in the robot's way: 0 not at all, 0.5 at AHEAD_M, up to 1 when nearer."""
    inside = in_the_way(frame)
    nearest = np.full(n_things, np.inf, np.float32)
    np.minimum.at(nearest, frame.ids[inside], frame.depth[inside])
    return (1 / (1 + np.exp(4 * (nearest - AHEAD_M)))).astype(np.float32)


def _anchors(owner: NDArray[np.intp], things: Array, described: Array, grid: int) -> dict[int, int]:
    """Choose the anchor of every visible thing: the nearest patch to its centre that it owns or covers."""
    anchors: dict[int, int] = {}
    for index in map(int, np.flatnonzero(described[:, ANCHOR.start])):
        taken = list(anchors.values())
        mine = np.setdiff1d(np.flatnonzero(owner == index), taken)
        if len(mine) == 0:
            mine = np.setdiff1d(np.flatnonzero(things[:, index] > 0), taken)
        if len(mine) == 0:
            continue
        u, v = (described[index, FACTS][:2] + 1) / 2 * grid
        away = (mine % grid + 0.5 - u) ** 2 + (mine // grid + 0.5 - v) ** 2
        anchors[index] = int(mine[away.argmin()])
    return anchors


assert FLOOR == -3 and CEILING == -1  # shares are ordered floor, wall, ceiling
