"""What of a walk the kept tokens show, by the true places of things and surfaces; no language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evals.rooms.purity import patch_ids
from evals.rooms.walks.geometry import places
from evals.rooms.walks.select import Chosen, Key
from evals.rooms.walks.splits import WalkExample
from service.roomqa.walks.questions import sights

CELL_M, NEAR_M = 0.25, 0.5
"""A cell of the surfaces that the frames show is covered when a kept token lies within NEAR_M of it."""
SAME_M = 0.2
"""Tokens of two frames nearer than this show one place twice."""


@dataclass(frozen=True)
class Coverage:
    """Shares: of the things that were seen and have a token, of surface that is near one, of tokens that
    show what another frame's token shows."""

    things: float
    surface: float
    twice: float


@dataclass(frozen=True, eq=False)
class Truth:
    """What the frames of a walk truly show. points [F, P, 3] in the world; ids [F, P]; seen: things."""

    points: NDArray[np.float64]
    ids: NDArray[np.int64]
    seen: tuple[int, ...]


def truth_of(example: WalkExample, grid: int) -> Truth:
    """Compute the true place of every patch, and what it shows."""
    points, ids = [], []
    for camera, view in zip(example.walk.cameras, example.frames, strict=True):
        own, pose = places(view.depth, grid).points.astype(np.float64), camera.pose
        points.append(own @ pose[:3, :3].T + pose[:3, 3])
        ids.append(patch_ids(view, (grid, grid)))
    seen = sights(example.walk, example.frames).seen
    return Truth(np.stack(points), np.stack(ids), tuple(seen))


def coverage(truth: Truth, chosen: Chosen, frames: Sequence[int]) -> Coverage:
    """Measure the kept tokens against what `frames` show, of which fewer may have been chosen from.

    A token shows what most of its patches show, and is where the most central of these is.
    """
    at, shows = [], []
    for number, frame in enumerate(chosen.shown):
        source = chosen.sources[number].numpy()
        for token in chosen.token[chosen.frame == frame].tolist():
            patches = np.nonzero(source == token)[0]
            kinds, counts = np.unique(truth.ids[frame, patches], return_counts=True)
            kind = int(kinds[counts.argmax()])
            there = truth.points[frame, patches[truth.ids[frame, patches] == kind]]
            at.append(there[((there - there.mean(axis=0)) ** 2).sum(axis=1).argmin()])
            shows.append(kind)
    kept = torch.from_numpy(np.array(at))
    own = torch.sort(chosen.frame).values
    found = set(shows)
    things = np.mean([one in found for one in truth.seen]) if truth.seen else 1.0
    return Coverage(
        float(things),
        float((_nearest(_surface(truth, frames), kept) <= NEAR_M).double().mean()),
        float(_shown_before(kept, own).double().mean()),
    )


def jaccard(one: Key, other: Key) -> float:
    """Return how alike two kept sets are: 1 if they are the same."""
    return len(one & other) / len(one | other)


def _surface(truth: Truth, frames: Sequence[int]) -> Tensor:
    """Return a point of each cell of the surfaces, so that what is near the camera counts no more."""
    points = truth.points[list(frames)].reshape(-1, 3)
    first = np.unique(np.floor(points / CELL_M).astype(np.int64), axis=0, return_index=True)[1]
    return torch.from_numpy(points[np.sort(first)])


def _nearest(points: Tensor, kept: Tensor) -> Tensor:
    return torch.cdist(points, kept).min(dim=1).values


def _shown_before(kept: Tensor, frames: Tensor) -> Tensor:
    """Return which tokens lie where one of an earlier frame does: bool [n]."""
    near = torch.cdist(kept, kept) < SAME_M
    return (near & (frames[None, :] < frames[:, None])).any(dim=1)
