"""The request for merging across frames: plain hashable data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

MergeFrames = Literal["none", "seen", "cover", "alike", "voxel", "diverse", "still"]
MERGE_FRAMES: Mapping[MergeFrames, str] = MappingProxyType(
    {
        "none": "Keeps every token of every frame.",
        "seen": "Drops what earlier frames have seen, place by place; the first look wins. With a budget, "
        "`cover` bounds what is left.",
        "cover": "Keeps one token for each cell of the scene, and then those farthest from all kept.",
        "alike": "Merges pairs that lie in one cell and are alike, in growing cells; `cover` does the rest.",
        "voxel": "Averages all tokens of a cell. A frozen language model reads such means worse than tokens.",
        "diverse": "Keeps tokens that are unlike each other, wherever they are: a control without geometry.",
        "still": "Keeps what changed most since the frame before: a control without geometry.",
    }
)
GEOMETRIC: frozenset[MergeFrames] = frozenset({"seen", "cover", "alike", "voxel"})
DEFAULT_BUDGET = 576
"""Visual tokens of all frames, where merging across frames is asked for without a number."""


@dataclass(frozen=True)
class FrameRule:
    """Say how the tokens of several frames become those of one episode.

    budget: most visual tokens of all frames together, separators included; None: no bound. separates: a
    separator follows the tokens of a frame. rho: share of a token's patches that must have been seen for it
    to be dropped (seen). cell_m: side of a cell, in metres, up to `near_m` of depth, and twice as much
    beyond. tau: least cosine of tokens that merge (alike). average: alike keeps the mean weighted by size,
    else the first token. max_age_s: what was seen longer ago is looked at anew (seen). unplaced_share: most
    of the budget for tokens that have no place, as long as others are there.
    """

    method: MergeFrames = "none"
    budget: int | None = None
    separates: bool = True
    rho: float = 0.75
    cell_m: float = 0.2
    near_m: float = 4.0
    tau: float = 0.9
    average: bool = True
    max_age_s: float | None = None
    unplaced_share: float = 0.25
