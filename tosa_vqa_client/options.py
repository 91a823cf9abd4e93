"""The fields of requests as keyword arguments, with the names of the HTTP API.

`depth` is the files; the word that HTTP sends in its place is `depth_source` here. The service decides what
is not given; `Client.methods()` lists methods and their options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from tosa_vqa_client.progress import OnProgress


class CallOptions(TypedDict, total=False):
    """Hold what concerns a call and not its question.

    timeout_s: longest time for all tries together; None waits for ever. request_id: a name for logs.
    """

    timeout_s: float | None
    request_id: str
    on_progress: OnProgress


class DepthOptions(TypedDict, total=False):
    """Say how depth files are to be read."""

    depth_preset: str
    depth_scale: float
    depth_kind: Literal["metric", "inverse", "relative"]
    depth_key: str
    depth_shape: str
    depth_invalid: Sequence[float]


class MergeOptions(TypedDict, total=False):
    """Say how visual tokens are merged."""

    method: str
    keep_ratio: float
    r: int | Sequence[int]
    r_hw: Sequence[int]
    layers: Sequence[int]
    schedule: str | float
    alpha: str | float | Sequence[float]
    spatial_kernel: str
    options: Mapping[str, int | float | str | None]
    prop_attn: bool
    target_ms: float
    target_accuracy: float
    order: str


class ViewOptions(DepthOptions, CallOptions, total=False):
    """Say where depth comes from, and how the model sees images."""

    depth_source: Literal["client", "estimate", "none"]
    views: Literal["auto", "single", "anyres", "video"]


class QuestionOptions(ViewOptions, total=False):
    """Hold what a question and a comparison have in common; confidence: whether to tell how sure it is."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    cache: bool
    confidence: bool


Pose = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Any]
"""Camera to world: 4 x 4 or 16 numbers row by row, or position and quaternion."""


class AcrossOptions(TypedDict, total=False):
    """Say how tokens merge across frames, and by what camera these were taken."""

    merge_frames: Literal["none", "seen", "cover", "alike", "voxel", "diverse", "still"]
    max_visual_tokens: int
    convention: str
    intrinsics: Mapping[str, float] | Sequence[Mapping[str, float] | None]
    depth_intrinsics: Mapping[str, float] | Sequence[Mapping[str, float] | None]


class FramesOptions(AcrossOptions, total=False):
    """Say where the images were taken, and how tokens merge across them."""

    poses: Sequence[Pose | None]
    timestamps: Sequence[float | None]


class EpisodeOptions(AcrossOptions, MergeOptions, DepthOptions, CallOptions, total=False):
    """Hold what is the same for all frames of an episode, and its questions."""

    depth_source: Literal["client", "estimate", "none"]


class PushOptions(CallOptions, total=False):
    """Hold the options of a frame of an episode."""

    pose: Pose
    timestamp: float
    intrinsics: Mapping[str, float]
    depth_intrinsics: Mapping[str, float]
    cache: bool


class EpisodeAskOptions(CallOptions, total=False):
    """Hold the options of a question about an episode; places: also show the walk, with attention."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    confidence: bool
    places: bool


class AskOptions(QuestionOptions, MergeOptions, FramesOptions, total=False):
    """Hold the options of a question."""


class CompareOptions(QuestionOptions, total=False):
    """Hold the options of a comparison; how to merge stands in its specs."""


class InspectOptions(DepthOptions, CallOptions, total=False):
    """Hold the options of a depth file.

    picture: whether to draw it. values_px: also return it as numbers, in at most so many rows and columns.
    """

    picture: bool
    values_px: int


class OverlayOptions(ViewOptions, MergeOptions, total=False):
    """Hold the options of a picture whose merging is shown; values_px: also return its depth as numbers."""

    values_px: int
