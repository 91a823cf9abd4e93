"""Tokens with places: what methods across frames choose from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """Hold what one frame brings: its tokens, and where its patches are.

    N tokens, P patches, D channels. features [N, D], in the order in which the language model reads them,
    without separators. source [P] int64, the token that holds each patch, -1 if none does. points [P, 3]
    float32, of the patches, in camera axes (x right, y down, z forward) and metres, NaN where there is none.
    is_edge [P] bool: depth jumps inside the patch. pose [4, 4] float64, camera to world; None: not known.
    camera: (fx, fy, cx, cy) in patches, so that a point (x, y, z) is in column floor(fx x/z + cx); grid:
    (rows, columns). timestamp in seconds.
    """

    features: Tensor
    source: Tensor
    points: Tensor
    is_edge: Tensor
    pose: Tensor | None = None
    grid: tuple[int, int] = (0, 0)
    camera: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    timestamp: float | None = None

    @property
    def has_place(self) -> bool:
        """Return whether anything of the frame has a place in the world."""
        return self.pose is not None and bool(torch.isfinite(self.points[:, 2]).any())


@dataclass(frozen=True, eq=False)
class PlacedTokens:
    """Hold M tokens of several frames, in the order of frames and, within one, of its tokens.

    features [M, D]; points [M, 3] float64 in the world, NaN without a place; frame, token [M] int64; size
    [M] float32, patches that each stands for; change [M] float32, how unlike the frame before at the same
    patches (infinite in the first frame).
    """

    features: Tensor
    points: Tensor
    frame: Tensor
    token: Tensor
    size: Tensor
    change: Tensor

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_place(self) -> Tensor:
        """Return which tokens have a place: bool [M]."""
        return torch.isfinite(self.points[:, 2])


def token_points(frame: FrameTokens) -> Tensor:
    """Return the place of every token in camera axes: float32 [N, 3], NaN where it has none.

    That of the one among its patches that is nearest to their centre (their medoid nearly): a token merged of
    a table and a wall is at one of them, and not in the air between. It needs a point in at least a quarter
    of its patches.
    """
    tokens = len(frame.features)
    has_point = torch.isfinite(frame.points[:, 2])
    held = frame.source >= 0
    total = torch.bincount(frame.source[held], minlength=tokens)
    patch = (held & has_point).nonzero().flatten()
    owner, points = frame.source[patch], frame.points[patch].double()
    count = torch.bincount(owner, minlength=tokens)
    centre = torch.zeros(tokens, 3, dtype=torch.float64).index_add_(0, owner, points)
    centre = centre / count.clamp(min=1)[:, None]
    chosen = first_by_group(((points - centre[owner]) ** 2).sum(dim=1), owner)
    places = torch.full((tokens, 3), torch.nan)
    places[owner[chosen]] = frame.points[patch[chosen]]
    places[4 * count < total] = torch.nan
    return places


def token_sizes(frame: FrameTokens) -> Tensor:
    """Return how many patches each token stands for: float32 [N]."""
    return torch.bincount(frame.source[frame.source >= 0], minlength=len(frame.features)).float()


def to_world(points: Tensor, pose: Tensor) -> Tensor:
    """Move points [n, 3] by poses [4, 4] or [n, 4, 4]: float64 [n, 3], in steps of a tenth of a millimetre.

    So that the last bits, which differ when the whole world is moved, decide nothing.
    """
    if pose.dim() == 2:
        moved = points.double() @ pose[:3, :3].T  # one product, and not one for each point
    else:
        moved = (pose[:, :3, :3] @ points.double()[..., None])[..., 0]
    return torch.round(moved + pose[..., :3, 3], decimals=4)


def first_by_group(score: Tensor, group: Tensor) -> Tensor:
    """Return the index of the lowest score of each group, the first of equals, in the order of groups."""
    order = torch.sort(score, stable=True).indices
    order = order[torch.sort(group[order], stable=True).indices]
    grouped = group[order]
    is_first = torch.ones(len(grouped), dtype=torch.bool)
    is_first[1:] = grouped[1:] != grouped[:-1]
    return order[is_first]


def unlike_before(frame: FrameTokens, before: FrameTokens | None) -> Tensor:
    """Return 1 - cosine to the frame before, averaged over the patches of each token: float32 [N].

    Infinite without a frame before, and where it had other patches.
    """
    tokens = len(frame.features)
    if before is None or len(before.source) != len(frame.source):
        return torch.full((tokens,), torch.inf)
    patch = ((frame.source >= 0) & (before.source >= 0)).nonzero().flatten()
    owner = frame.source[patch]
    now = torch.nn.functional.normalize(frame.features.float(), dim=1)[owner]
    then = torch.nn.functional.normalize(before.features.float(), dim=1)[before.source[patch]]
    total = torch.zeros(tokens).index_add_(0, owner, 1 - (now * then).sum(dim=1))
    return total / torch.bincount(owner, minlength=tokens).clamp(min=1)
