"""The tokens of an episode while its frames come in: bounded, and the same for the same frames.

A pool holds more tokens than a question may use. When it is full, it keeps those of most cells of the scene,
in cells that double as the scene grows; the budget is filled from it when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.frames.cover import voxel_of
from tosa.frames.placed import (
    FrameTokens,
    PlacedTokens,
    to_world,
    token_points,
    token_sizes,
    unlike_before,
)
from tosa.frames.plain import diverse, still
from tosa.frames.rows import Rows
from tosa.frames.rule import GEOMETRIC, FrameRule
from tosa.frames.seen import SeenCells, is_gone
from tosa.frames.select import BudgetTooSmall, Kept, select_tokens
from tosa.frames.table import FrameTable

CAPACITY = 16_384
"""Tokens of a pool: 12 frames of LLaVA-OneVision without any merging inside fit, and selection is exact."""
_ORIGIN_M = (0.0377, 0.0511, 0.0293)
"""Where the first camera is in the grid of cells: walls often lie at round distances from it, and sides of
cells should not lie on walls."""
_FULL_SHARE, _CELL_SHARE, _UNPLACED_SHARE = 0.75, 0.5, 0.25
"""Of the capacity: what is left when a full pool was thinned, cells at most, and tokens without a place."""


@dataclass(frozen=True)
class Admitted:
    """Say what became of a frame: its number, its tokens, those admitted, and those with a place."""

    frame: int
    tokens: int
    admitted: int
    placed: int


class EpisodeMemory:
    """Hold the tokens of an episode, for one thread at a time.

    The world's origin is the camera of the first frame with a pose, so that moving the whole world changes
    nothing. Frames are numbered as they come; nothing here looks at a clock.
    """

    def __init__(self, rule: FrameRule, capacity: int = CAPACITY) -> None:
        self.rule, self.capacity = rule, capacity
        self._rows: Rows | None = None
        self._frames = FrameTable()  # poses about the origin
        self._origin: Tensor | None = None  # world to origin
        self._seen = SeenCells(rule)
        self._cell_m = rule.cell_m
        self._before: FrameTokens | None = None
        self._kept: Kept | None = None

    @property
    def frames(self) -> int:
        """Return how many frames came."""
        return len(self._frames)

    @property
    def tokens(self) -> int:
        """Return how many tokens are held, for all questions."""
        return 0 if self._rows is None else len(self._rows)

    @property
    def cell_m(self) -> float:
        """Return the side of the cells that a full pool was thinned by, in metres."""
        return self._cell_m

    @property
    def nbytes(self) -> int:
        """Return the memory that is used."""
        rows = 0 if self._rows is None else self._rows.nbytes
        before = 0 if self._before is None else self._before.features.nbytes
        return rows + before + self._frames.nbytes + self._seen.nbytes

    @property
    def remembered(self) -> int:
        """Return how many frames have a pose and a time here still."""
        return self._frames.remembered

    @property
    def latest(self) -> float:
        """Return the latest timestamp of all frames in seconds, NaN if none had one."""
        return self._frames.latest

    def times(self, numbers: Sequence[int]) -> list[float]:
        """Return the timestamps in seconds of frames that still have tokens, NaN without one."""
        return self._frames.times(torch.tensor(numbers, dtype=torch.int64)).tolist()

    def held_by_frame(self) -> list[tuple[int, int, int]]:
        """Return (frame, tokens, tokens with a place) of every frame that still has tokens."""
        if self._rows is None:
            return []
        frame, run, count = self._rows["frame"].unique_consecutive(return_inverse=True, return_counts=True)
        placed = torch.bincount(run[self._is_placed], minlength=len(frame))
        return list(zip(frame.tolist(), count.tolist(), placed.tolist(), strict=True))

    def push(self, frame: FrameTokens) -> Admitted:
        """Take in the tokens of the next frame.

        Raises BudgetTooSmall, and has changed nothing, if the rule keeps all and they do not fit.
        """
        frame = self._about_origin(frame)
        self._require_room(frame)
        time = torch.nan if frame.timestamp is None else frame.timestamp
        number = self._frames.append(frame.pose, time)
        admitted = self._admit(frame, number, time)
        self._append(frame, number, admitted)
        self._before = frame if self.rule.method == "still" else None
        self._kept = None
        if self.tokens > self.capacity:
            self._thin()
        if self._frames.is_crowded:
            self._forget_frames()
        has_place = torch.isfinite(token_points(frame)[:, 2]) & (frame.pose is not None)
        return Admitted(number, len(frame.features), int(admitted.sum()), int(has_place.sum()))

    def select(self) -> Kept | None:
        """Return the tokens that a question reads, None before the first; remembered until the next frame."""
        if self._kept is None and self.tokens:
            assert self._rows is not None
            self._kept = select_tokens(self.placed(), self.rule, self._rows["is_stale"])
        return self._kept

    def placed(self) -> PlacedTokens:
        """Return all tokens that are held, with their places about the origin."""
        rows = self._rows
        assert rows is not None, "frames have come"
        points = to_world(rows["point"], self._frames.poses(rows["frame"]))
        return PlacedTokens(
            rows["features"], points, rows["frame"], rows["token"], rows["size"], rows["change"]
        )

    @property
    def cameras(self) -> list[tuple[int, Tensor]]:
        """Return number and pose [4, 4], camera to world, of every remembered frame with a pose, in order."""
        numbers = self._frames.numbers
        poses = self._frames.poses(numbers)
        if self._origin is not None:
            poses = torch.linalg.inv(self._origin) @ poses
        found = zip(numbers.tolist(), poses, strict=True)
        return [(number, pose) for number, pose in found if pose[0, 0].isfinite()]

    def points(self, kept: Kept) -> Tensor:
        """Return where tokens that were selected are in the world: float64 [T, 3], NaN without a place."""
        points = self.placed().points[kept.leader]
        return points if self._origin is None else to_world(points, torch.linalg.inv(self._origin))

    def frames_of(self, kept: Kept) -> list[list[int]]:
        """Return the frames whose tokens merged into each of those that were selected, ascending."""
        assert self._rows is not None, "frames have come"
        pairs = torch.stack([kept.part_of, self._rows["frame"]], dim=1)[kept.part_of >= 0].unique(dim=0)
        found: list[list[int]] = [[] for _ in kept.leader]
        for token, frame in pairs.tolist():
            found[token].append(frame)
        return found

    def move(self, poses: Iterable[tuple[int, Tensor]]) -> None:
        """Give frames new poses [4, 4], as after a loop closure: all places are computed anew.

        What was dropped because of the old poses does not come back. The origin stays where it is.
        """
        for number, pose in poses:
            if self._origin is None:
                self._origin = _from_world(pose)
            self._frames.move(number, self._origin @ pose)
        self._seen.moved(self._frames)
        self._kept = None

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors by name, for `of_state`."""
        named = {
            "cell_m": torch.tensor(self._cell_m, dtype=torch.float64),
            **{f"frames.{name}": value for name, value in self._frames.state().items()},
            **{f"seen.{name}": value for name, value in self._seen.state().items()},
        }
        if self._rows is not None:
            named |= {f"rows.{name}": value for name, value in self._rows.copies().items()}
        if self._origin is not None:
            named["origin"] = self._origin
        if self._before is not None:
            named |= {"before.features": self._before.features, "before.source": self._before.source}
        return named

    @classmethod
    def of_state(cls, rule: FrameRule, state: dict[str, Tensor], capacity: int = CAPACITY) -> EpisodeMemory:
        """Return the memory that a `state` was taken of."""
        memory = cls(rule, capacity)
        memory._cell_m = float(state["cell_m"])
        memory._frames = FrameTable.of_state(_under(state, "frames."))
        memory._seen = SeenCells.of_state(rule, _under(state, "seen."))
        rows = _under(state, "rows.")
        memory._rows = Rows(rows) if rows else None
        memory._origin = state.get("origin")
        if "before.features" in state:
            source = state["before.source"]
            nowhere = torch.full((len(source), 3), torch.nan)
            memory._before = FrameTokens(
                state["before.features"], source, nowhere, torch.zeros_like(source) > 0
            )
        return memory

    @property
    def _is_placed(self) -> Tensor:
        assert self._rows is not None
        has_pose = torch.isfinite(self._frames.poses(self._rows["frame"])[:, 0, 0])
        return torch.isfinite(self._rows["point"][:, 2]) & has_pose

    def _about_origin(self, frame: FrameTokens) -> FrameTokens:
        if frame.pose is None:
            return frame
        if self._origin is None:
            self._origin = _from_world(frame.pose)
        return FrameTokens(
            frame.features,
            frame.source,
            frame.points,
            frame.is_edge,
            self._origin @ frame.pose,
            frame.grid,
            frame.camera,
            frame.timestamp,
        )

    def _require_room(self, frame: FrameTokens) -> None:
        if self.rule.method != "none":
            return
        frames = len(self.held_by_frame()) + 1
        needed = self.tokens + len(frame.features) + (frames if self.rule.separates else 0)
        most = self.capacity if self.rule.budget is None else min(self.rule.budget, self.capacity)
        if needed > most:
            raise BudgetTooSmall(needed, most)

    def _admit(self, frame: FrameTokens, number: int, time: float) -> Tensor:
        """Return which tokens are admitted: bool [N]."""
        everything = torch.ones(len(frame.features), dtype=torch.bool)
        if self.rule.method != "seen" or frame.pose is None:
            return everything
        self._mark_gone(frame)
        self._seen.forget_gone(frame)
        admitted = self._seen.seen_share(frame, self._frames, time) < self.rule.rho
        self._seen.add(frame, number, admitted, time)
        return admitted

    def _mark_gone(self, frame: FrameTokens) -> None:
        if self._rows is None:
            return
        places = to_world(self._rows["point"], self._frames.poses(self._rows["frame"]))
        gone = is_gone(frame, places, self._rows["point"][:, 2], self._seen.side_m)
        self._rows["is_stale"].logical_or_(gone)

    def _append(self, frame: FrameTokens, number: int, admitted: Tensor) -> None:
        token = admitted.nonzero().flatten()
        points = token_points(frame)
        if frame.pose is None:
            points = torch.full_like(points, torch.nan)
        change = unlike_before(frame, self._before) if self.rule.method == "still" else points[:, 0] * 0
        columns = {
            "features": frame.features[token],
            "frame": torch.full_like(token, number),
            "token": token,
            "size": token_sizes(frame)[token],
            "point": points[token],
            "change": change[token],
            "is_stale": torch.zeros(len(token), dtype=torch.bool),
        }
        if self._rows is None:
            self._rows = Rows({name: value.clone() for name, value in columns.items()})
        else:
            self._rows.append(columns)

    def _forget_frames(self) -> None:
        """Forget the poses of frames of which neither a token nor a cell is left."""
        assert self._rows is not None
        self._frames.forget_all_but(torch.cat([self._rows["frame"].unique_consecutive(), self._seen.frames]))

    def _thin(self) -> None:
        """Bring a full pool to three quarters, so that this happens once in many frames."""
        assert self._rows is not None
        target = int(_FULL_SHARE * self.capacity)
        if self.rule.method in GEOMETRIC:
            kept = self._thinned_by_cells(target)
        elif self.rule.method == "still":
            kept = still(self._rows["change"], target)
        else:
            kept = diverse(self._rows["features"], min(target, 2 * (self.rule.budget or target)))
        self._rows.keep(kept)

    def _thinned_by_cells(self, target: int) -> Tensor:
        """Keep the most central tokens of every cell, one of each before the second of any.

        What is gone goes first. Of tokens without a place, a sample that favours no time.
        """
        assert self._rows is not None
        tokens = self.placed()
        placed, unplaced = tokens.has_place, ~tokens.has_place
        current = (placed & ~self._rows["is_stale"]).nonzero().flatten()
        stale = (placed & self._rows["is_stale"]).nonzero().flatten()
        lost = unplaced.nonzero().flatten()
        quota = min(len(lost), max(int(_UNPLACED_SHARE * target), target - len(current)))
        order = torch.sort(_drawn(tokens.frame[lost], tokens.token[lost]), stable=True).indices
        kept = [lost[order[:quota]]]
        left = target - quota
        kept.append(current[self._central(tokens.points[current], left)])
        kept.append(stale[: max(0, left - len(current))])
        return torch.sort(torch.cat(kept)).values

    def _central(self, points: Tensor, most: int) -> Tensor:
        if len(points) <= most:
            return torch.arange(len(points))
        cell = voxel_of(points, self._cell_m)
        while int(cell.max()) + 1 > min(most, int(_CELL_SHARE * self.capacity)):
            self._cell_m *= 2
            cell = voxel_of(points, self._cell_m)
        count = torch.bincount(cell)
        centre = torch.zeros(len(count), 3, dtype=points.dtype).index_add_(0, cell, points)
        apart = ((points - (centre / count[:, None])[cell]) ** 2).sum(dim=1)
        order = torch.sort(apart, stable=True).indices
        order = order[torch.sort(cell[order], stable=True).indices]
        start = torch.cumsum(count, 0) - count
        rank = torch.arange(len(points)) - start[cell[order]]
        return order[torch.sort(rank, stable=True).indices[:most]]


def merge_frames(frames: Sequence[FrameTokens], rule: FrameRule, capacity: int = CAPACITY) -> Kept | None:
    """Merge the tokens of frames, in the order given, as an episode does that gets them one by one.

    Returns None without a token. Raises BudgetTooSmall.
    """
    memory = EpisodeMemory(rule, capacity)
    for frame in frames:
        memory.push(frame)
    return memory.select()


def _from_world(pose: Tensor) -> Tensor:
    """Return what brings the world to the camera of this pose, a little off the origin: [4, 4]."""
    shifted = torch.linalg.inv(pose)
    shifted[:3, 3] += torch.tensor(_ORIGIN_M, dtype=torch.float64)
    return shifted


def _drawn(frame: Tensor, token: Tensor) -> Tensor:
    """Return a number for each token as if drawn at random, the same every time: int64 [n]."""
    mixed = (frame * 1_000_003 + token) * 0x9E3779B1 & 0xFFFFFFFF
    mixed = ((mixed ^ mixed >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    return ((mixed ^ mixed >> 13) * 0xC2B2AE35) & 0xFFFFFFFF


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
