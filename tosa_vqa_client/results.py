"""What the service answers, as frozen dataclasses with the names of its JSON.

Fields that a newer service adds are ignored here, and are in `raw` as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class ModelUsed:
    """Name the model that answered."""

    id: str
    revision: str


@dataclass(frozen=True)
class MergeDone:
    """Describe the merging; token counts are sums over images. Settings that a method lacks are None."""

    method: str
    keep_ratio: float
    tokens_in: int
    tokens_out: int
    vit_flops_ratio: float
    saves: tuple[str, ...]
    prop_attn: bool
    r: int | tuple[int, ...] | None = None
    r_hw: tuple[int, ...] | None = None
    layers: tuple[int, ...] | None = None
    alpha: str | float | tuple[float, ...] | None = None
    spatial_kernel: str | None = None
    options: Mapping[str, int | float | str | None] | None = None
    chosen_because: str | None = None


@dataclass(frozen=True)
class ViewsUsed:
    """Say how the encoder saw one picture, or one video."""

    kind: str
    count: int
    grid: tuple[int, ...]
    tiles: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Guessed:
    """Hold an assumption about a depth file: the field that was not sent, and how it was guessed."""

    field: str
    sentence: str


@dataclass(frozen=True)
class DepthNote:
    """Hold a doubt about a depth file that was accepted, or a decision about its numbers."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Estimator:
    """Name the depth estimator."""

    id: str
    revision: str
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class DepthUnderstood:
    """Describe how depth was interpreted; `range` is in `unit`, or in the file's own numbers without one."""

    kind: str | None = None
    unit: str | None = None
    range: tuple[float, ...] | None = None
    scale: float | None = None
    preset: str | None = None
    valid_ratio: float | None = None
    guessed: tuple[Guessed, ...] = ()
    notes: tuple[DepthNote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DepthUsed(DepthUnderstood):
    """Describe the depth that guided the merging; source: client, estimate, none or unused."""

    source: str
    estimator: Estimator | None = None
    cached: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DepthValues:
    """Hold a depth map as numbers row by row, every n-th row and column of it; None is a hole."""

    height: int
    width: int
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class DepthInspection(DepthUnderstood):
    """Describe how a depth file was interpreted; picture: the bytes of a PNG, if it was asked for."""

    format: str
    dtype: str
    height: int
    width: int
    median: float
    request_id: str
    same_aspect: bool | None = None
    picture: bytes | None = None
    values: DepthValues | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Usage:
    """Count the tokens of the language model."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class TimingsMs:
    """Hold milliseconds by stage, None for a stage that did not run; the stages add up to the total."""

    receive: float | None = None
    queue: float | None = None
    decode: float | None = None
    preprocess: float | None = None
    estimate: float | None = None
    depth: float | None = None
    vision: float | None = None
    language_queue: float | None = None
    prefill: float | None = None
    generate: float | None = None
    total: float


@dataclass(frozen=True)
class FrameKept:
    """Say what is left of one frame of an episode."""

    frame: int
    timestamp: float | None
    held: int
    placed: int
    kept: int


@dataclass(frozen=True)
class WalkCamera:
    """Say where the camera of a frame was; forward and up are unit vectors of the world."""

    frame: int
    position: tuple[float, ...]
    forward: tuple[float, ...]
    up: tuple[float, ...]


@dataclass(frozen=True)
class WalkToken:
    """Describe a token that is read: its place in metres, the frames it comes from, and attention to it."""

    place: tuple[float, ...] | None
    frames: tuple[int, ...]
    attention: float | None


@dataclass(frozen=True)
class EpisodeWalk:
    """Show an episode in its world."""

    cameras: tuple[WalkCamera, ...]
    tokens: tuple[WalkToken, ...]


@dataclass(frozen=True)
class EpisodeUsed:
    """Say how tokens merged across frames, and what is left of each frame."""

    id: str | None
    merge_frames: str
    max_visual_tokens: int | None
    visual_tokens: int
    frames: int
    tokens: int
    cell_m: float
    agreement: float | None
    kept: tuple[FrameKept, ...]
    notes: tuple[DepthNote, ...]
    walk: EpisodeWalk | None = None


@dataclass(frozen=True, kw_only=True)
class EpisodeState(EpisodeUsed):
    """Describe an episode; created: in seconds since 1970. fields: what it was begun with."""

    id: str
    request_id: str
    created: float
    idle_s: float
    bytes: int
    fields: Raw
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class EpisodeList:
    """List the episodes of a key."""

    request_id: str
    episodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EpisodeDeleted:
    """Say that an episode is gone."""

    request_id: str
    deleted: str


@dataclass(frozen=True, kw_only=True)
class FrameTaken:
    """Say what became of a frame: its number, its tokens, and what the episode holds now."""

    request_id: str
    episode: str
    frame: int
    frames: int
    tokens: int
    admitted: int
    placed: int
    held: int
    agreement: float | None
    notes: tuple[DepthNote, ...]
    cached: bool
    timings_ms: TimingsMs
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Hold an answer and how it was made.

    finish_reason: stop, or length where it was cut off. confidence: probability of the answer, if asked for.
    episode: how tokens merged across frames, if they did.
    """

    answer: str
    merge: MergeDone
    views: tuple[ViewsUsed, ...]
    depth: DepthUsed | None
    usage: Usage
    finish_reason: str
    cached: bool
    batch_size: int
    timings_ms: TimingsMs
    confidence: float | None = None
    episode: EpisodeUsed | None = None


@dataclass(frozen=True, kw_only=True)
class Answer(Answered):
    """Hold the answer to a question, and how it was made."""

    request_id: str
    model: ModelUsed
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Say why a request was refused: a stable code, a sentence, and its field, choices and limit, if any."""

    code: str
    message: str
    request_id: str
    field: str | None = None
    choices: tuple[str, ...] | None = None
    limit: int | float | None = None


@dataclass(frozen=True, kw_only=True)
class ComparedAnswer(Answered):
    """Answer the question of a comparison with one of its specs."""

    spec: Raw


@dataclass(frozen=True, kw_only=True)
class ComparedRefusal:
    """Hold one spec of a comparison, and the error it was refused with."""

    spec: Raw
    error: Refusal


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold one question with several merge settings, in the order of the specs.

    baseline: index of the first answer without merging. agree: whether each answer equals that one's.
    """

    request_id: str
    model: ModelUsed
    question: str
    results: tuple[ComparedAnswer | ComparedRefusal, ...]
    baseline: int | None
    agree: tuple[bool | None, ...]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class OverlayLayer:
    """Hold the groups of patches that a layer leaves behind: of each patch, row by row; -1 was dropped."""

    layer: int
    groups: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OverlayView:
    """Show the merging in one view of a picture.

    box: left, top, right and bottom, as shares of the picture. grid: rows and columns of patches. depth: mean
    of each patch. layers: those whose groups differ from the ones before.
    """

    box: tuple[float, ...]
    grid: tuple[int, ...]
    depth: tuple[float | None, ...] | None
    layers: tuple[OverlayLayer, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        """Return the group of each patch after the last layer; without merging, each is its own."""
        rows, columns = self.grid
        return self.layers[-1].groups if self.layers else tuple(range(rows * columns))


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Show which patches of a picture became one token; tokens: of one view, at each layer and at the end."""

    request_id: str
    model: ModelUsed
    merge: MergeDone
    depth: DepthUsed | None
    tokens: tuple[int, ...]
    views: tuple[OverlayView, ...]
    timings_ms: TimingsMs
    values: DepthValues | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class MethodOption:
    """Describe an option of a method."""

    name: str
    type: str
    default: int | float | str | None
    description: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """Describe a merging method: what it needs, how its budget is named, and its options.

    needs_depth: always, never, or "if asked": when the option named by depth_option is above 0. layers: all,
    first_half, or one, from first_layer on.
    """

    name: str
    title: str
    paper: str | None
    needs_depth: str
    depth_option: str | None
    keeps_grid: bool
    dials: tuple[str, ...]
    prop_attn: bool
    layers: str | None
    first_layer: int | None
    options: tuple[MethodOption, ...]


@dataclass(frozen=True, kw_only=True)
class Methods:
    """List the merging methods of the service, and the defaults of a request."""

    methods: tuple[Method, ...]
    defaults: Raw
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Method:
        """Return a method by its name. Raises KeyError."""
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(name)
