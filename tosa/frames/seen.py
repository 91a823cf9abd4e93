"""Which places earlier frames have seen: a hash of cells about a fixed origin.

After the idea of "Seeing Once is Enough" (2026): tokens over places that were seen add little.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tosa.frames.index import KeyIndex
from tosa.frames.placed import FrameTokens, to_world
from tosa.frames.rows import Rows
from tosa.frames.rule import FrameRule
from tosa.frames.table import FrameTable

MOST_CELLS = 65_536
"""Beyond, cells double: sides of powers of two nest, so that what was seen stays seen."""
_BITS = 20
_OPPOSITE = -0.25
"""Cosine of two directions of view below which they saw two sides of one wall."""
_NEARER = 1.25
"""Only looks from at most so much farther away show that a thing is gone: from afar, it may be too small."""


class SeenCells:
    """Remember the cells that patches lay in, with the first look at each."""

    def __init__(self, rule: FrameRule, doublings: int = 0) -> None:
        self.doublings = doublings
        self._rule = rule
        self._index = KeyIndex()
        self._rows = Rows(
            {
                "key": torch.zeros(0, dtype=torch.int64),
                "point": torch.zeros(0, 3),  # in the camera's axes
                "place": torch.zeros(0, 3, dtype=torch.float64),  # in the world
                "frame": torch.zeros(0, dtype=torch.int64),
                "time": torch.zeros(0, dtype=torch.float64),
            }
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Return the memory that is used."""
        return self._rows.nbytes + self._index.nbytes

    @property
    def frames(self) -> Tensor:
        """Return the frames that a cell remembers, whose poses are needed still: int64 [n]."""
        return self._rows["frame"].unique()

    @property
    def side_m(self) -> float:
        """Return the side of a cell near the camera in metres."""
        return self._rule.cell_m * 2**self.doublings

    def seen_share(self, frame: FrameTokens, frames: FrameTable, time: float) -> Tensor:
        """Return the share of each token's patches that lie where an earlier frame looked: float32 [N].

        frames: earlier ones, with their poses. Edges and patches without a point count as not seen.
        """
        tokens = len(frame.features)
        patch = placed_patches(frame)
        total = torch.bincount(frame.source[frame.source >= 0], minlength=tokens).clamp(min=1)
        if not len(patch) or not len(self):
            return torch.zeros(tokens)
        assert frame.pose is not None, "placed patches have a pose"
        points = to_world(frame.points[patch], frame.pose)
        is_seen = self._find(self._keys(points, frame.points[patch, 2]), points, frame.pose, frames, time)
        return torch.bincount(frame.source[patch][is_seen], minlength=tokens) / total

    def add(self, frame: FrameTokens, number: int, is_admitted: Tensor, time: float) -> None:
        """Remember where the admitted tokens [N] of a frame are."""
        patch = placed_patches(frame)
        patch = patch[is_admitted[frame.source[patch]]]
        if not len(patch):
            return
        assert frame.pose is not None, "placed patches have a pose"
        points = to_world(frame.points[patch], frame.pose)
        depth = frame.points[patch, 2]
        is_near = depth <= self._rule.near_m
        own = self._keys(points, depth)
        above = self._keys(points, torch.full_like(depth, torch.inf))
        keys = torch.cat([own, above[is_near]])
        cells = {
            "key": keys,
            "point": torch.cat([frame.points[patch], frame.points[patch][is_near]]),
            "place": torch.cat([points, points[is_near]]),
            "frame": torch.full_like(keys, number),
            "time": torch.full(keys.shape, time).double(),
        }
        self._insert(cells)
        while len(self) > MOST_CELLS:
            self.doublings += 1
            self._rekey(None)

    def forget_gone(self, frame: FrameTokens) -> None:
        """Free the cells that a frame looks through: what was seen in them is no longer there."""
        if not len(self):
            return
        kept = ~is_gone(frame, self._rows["place"], self._rows["point"][:, 2], self.side_m)
        if not kept.all():
            self._index.keep(kept)
            self._rows.keep(kept.nonzero().flatten())

    def moved(self, frames: FrameTable) -> None:
        """Put every cell where the new poses of its frame place it."""
        self._rekey(frames.poses(self._rows["frame"]))

    def state(self) -> dict[str, Tensor]:
        """Return all that is remembered."""
        return {**self._rows.copies(), "doublings": torch.tensor(self.doublings)}

    @classmethod
    def of_state(cls, rule: FrameRule, state: dict[str, Tensor]) -> SeenCells:
        """Return what `state` was taken of."""
        cells = cls(rule, int(state["doublings"]))
        cells._insert({name: state[name] for name in ("key", "point", "place", "frame", "time")})
        return cells

    def _find(self, keys: Tensor, points: Tensor, pose: Tensor, frames: FrameTable, time: float) -> Tensor:
        """Return which cells were seen, from this side, and not too long ago: bool [n]."""
        slot = self._index.find(keys)
        is_known = slot >= 0
        found = slot[is_known]
        first = frames.poses(self._rows["frame"][found])
        was = first[:, :3, :3] @ self._rows["point"][found].double()[..., None]  # direction of the first look
        now = points[is_known] - pose[:3, 3]
        cosine = torch.nn.functional.cosine_similarity(was[..., 0], now, dim=1)
        counts = cosine >= _OPPOSITE
        if self._rule.max_age_s is not None:
            counts &= time - self._rows["time"][found] <= self._rule.max_age_s
        is_known[is_known.clone()] = counts
        return is_known

    def _keys(self, points: Tensor, depth: Tensor) -> Tensor:
        """Pack the cell of each point [n, 3], large beyond `near_m` of depth, in one number: int64 [n]."""
        is_far = (depth > self._rule.near_m).to(torch.int64)
        side = self.side_m * (1 + is_far).double()
        half = 1 << (_BITS - 1)
        cell = (torch.floor(points / side[:, None]).to(torch.int64) + half).clamp(0, 2 * half - 1)
        return (((cell[:, 0] << _BITS | cell[:, 1]) << _BITS) | cell[:, 2]) << 1 | is_far

    def _insert(self, cells: Mapping[str, Tensor]) -> None:
        """Add the cells whose keys are new; of equal ones the first."""
        new = self._index.add(cells["key"])
        self._rows.append({name: column[new] for name, column in cells.items()})

    def _rekey(self, poses: Tensor | None) -> None:
        """Compute all keys anew: for new poses [n, 4, 4], or else for cells that have doubled.

        First looks win.
        """
        old = self._rows.copies()
        if poses is None:
            keys, places = _doubled(old["key"]), old["place"]
        else:
            depth = torch.where((old["key"] & 1).bool(), torch.inf, 0.0)
            places = to_world(old["point"], poses)
            keys = self._keys(places, depth)
        self._index = KeyIndex()
        self._rows.keep(torch.zeros(0, dtype=torch.int64))
        self._insert({**old, "key": keys, "place": places})


def placed_patches(frame: FrameTokens) -> Tensor:
    """Return the patches that hide others, and are hidden: with a point, a token, and no edge inside."""
    if frame.pose is None:
        return torch.zeros(0, dtype=torch.int64)
    return (torch.isfinite(frame.points[:, 2]) & (frame.source >= 0) & ~frame.is_edge).nonzero().flatten()


def is_gone(frame: FrameTokens, places: Tensor, depth: Tensor, margin_m: float) -> Tensor:
    """Return which things a frame looks through: bool [n].

    places [n, 3] of the things in the world, depth [n] at which they were seen. A thing is gone if it should
    be in view, and the patch there and all around it are farther than it by more than the noise and a cell.
    """
    if not frame.has_place or not len(places):
        return torch.zeros(len(places), dtype=torch.bool)
    assert frame.pose is not None, "a frame with places has a pose"
    rows, columns = frame.grid
    from_world = torch.linalg.inv(frame.pose)
    there = to_world(places, from_world)
    z = there[:, 2].clamp(min=1e-3)
    fx, fy, cx, cy = frame.camera
    column, row = (fx * there[:, 0] / z + cx).floor().long(), (fy * there[:, 1] / z + cy).floor().long()
    is_inside = (there[:, 2] > 0.1) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    now = torch.nan_to_num(frame.points[:, 2].reshape(1, rows, columns).double(), nan=-1.0)
    around = -torch.nn.functional.max_pool2d(-now, 3, stride=1, padding=1)[0]
    seen = around[row.clamp(0, rows - 1), column.clamp(0, columns - 1)]
    noise = 3 * (0.0012 + 0.0019 * (z - 0.4) ** 2)  # a Kinect's, in metres
    return is_inside & (seen > z + noise + margin_m) & (z <= _NEARER * depth)


def _doubled(keys: Tensor) -> Tensor:
    """Return the keys of cells of twice the side that hold these."""
    far, packed = keys & 1, keys >> 1
    mask, half = (1 << _BITS) - 1, 1 << (_BITS - 1)
    x, y, z = (((packed >> shift & mask) - half >> 1) + half for shift in (2 * _BITS, _BITS, 0))
    return ((x << _BITS | y) << _BITS | z) << 1 | far
