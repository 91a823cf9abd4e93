"""The fields of requests, with their types and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    create_model,
)

from depth.conventions import CONVENTIONS
from depth.depth_format import FormatOptions, choose_format
from depth.errors import MAX_INVALID
from depth.presets import KINDS, PRESET_NAMES
from service.request.coercion import MAX_ENTRIES, few, json_object, number_list, numbers
from service.request.frame_fields import (
    MOST_FRAMES,
    FramesFields,
    PosedFields,
    PoseFields,
    Raw,
    json_value,
)
from tosa import METHODS, MergeSpec

if TYPE_CHECKING:
    from vlm import GenerationParams, Turn

_ANY_DTYPE = np.dtype(np.uint16)


class DepthFields(BaseModel):
    """Hold the fields that describe depth files; the response lists what was guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    depth_preset: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description=f"Source of the depth files, which sets scale and kind: {', '.join(PRESET_NAMES)}.",
        examples=["scannet", "tum", "realsense:0.001"],
    )
    depth_scale: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Depth units per metre; guessed if not sent: 1000 for integers, 1 for floats.",
        examples=[1000, 5000],
    )
    depth_kind: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description=f"What the numbers are: {', '.join(KINDS)}; inverse grows towards the camera.",
        examples=["metric"],
    )
    depth_key: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description="Array of an NPZ file, or channel of an OpenEXR file, that holds the depth; needed where "
        "there are several.",
        examples=["depth", "V"],
    )
    depth_shape: Annotated[str, Field(max_length=16)] | None = Field(
        default=None,
        description="Width x height of depth files that are plain numbers without a header; the length of "
        "the file says their type.",
        examples=["256x192"],
    )
    depth_invalid: Annotated[
        Annotated[list[float], Field(max_length=MAX_INVALID)] | None, BeforeValidator(number_list)
    ] = Field(
        default=None,
        description="Numbers of the file that are holes, besides negative, NaN and infinite ones, and 0 in "
        "metric depth. If not sent, the pixels of an 8-bit file say whether 0 is a hole.",
        examples=[[65535]],
    )

    def format_options(self) -> FormatOptions:
        """Return the options of `read_depth`."""
        return {
            "preset": self.depth_preset,
            "scale": self.depth_scale,
            "kind": self.depth_kind,
            "invalid": None if self.depth_invalid is None else tuple(self.depth_invalid),
            "key": self.depth_key,
            "shape": self.depth_shape,
        }

    def check_format(self) -> None:
        """Check that the fields are possible and go together, before any file is read. Raises DepthError."""
        choose_format(_ANY_DTYPE, **self.format_options())


ValuesPx = Annotated[
    int,
    Field(
        ge=0,
        le=512,
        description="Also answer with the depth as numbers, in at most so many rows and columns; 0: not.",
        examples=[128],
    ),
]


class InspectFields(DepthFields):
    """Hold the fields of a depth file to be inspected."""

    picture: bool = Field(
        default=False,
        description="Also answer with a picture of the depth, a PNG in base64.",
        examples=[True],
    )
    values_px: ValuesPx = 0


DEFAULT_KEEP_RATIO = 0.25
AUTO = "auto"
"""The method that a calibration chooses."""
Views = Literal["auto", "single", "anyres", "video"]
VIEWS: tuple[Views, ...] = get_args(Views)
"""As vlm has them, which takes seconds to import."""
LONGEST_ANSWER = 2**31 - 1
"""Largest max_new_tokens: no context is as long, so that an answer of this length ends where it does."""

Count = Annotated[int, Field(ge=0, le=1_000_000)]
LayerCounts = Annotated[list[Count], Field(max_length=512)]
Weights = Annotated[list[float], Field(max_length=512)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Word = Annotated[str, Field(max_length=32)]
OptionValue = (
    Annotated[StrictInt, Field(ge=-(2**53), le=2**53)]
    | Annotated[StrictFloat, Field(ge=-1e9, le=1e9)]
    | Annotated[StrictStr, Field(max_length=64)]
    | None
)
Options = Annotated[dict[Word, OptionValue], Field(max_length=MAX_ENTRIES), BeforeValidator(few)]


class MergeFields(BaseModel):
    """Hold the merge settings; together they make a MergeSpec."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Word | None = Field(
        default=None,
        description="Merging method; by default tosa if depth is sent and used or depth=estimate, else none. "
        "auto: what the calibration of this server and the noise of the first picture say.",
        examples=[*METHODS, AUTO],
    )
    keep_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=f"Share of visual tokens to keep; {DEFAULT_KEEP_RATIO} if neither r nor r_hw is sent.",
        examples=[0.25, 0.5],
    )
    r: Annotated[Count | LayerCounts | None, BeforeValidator(numbers)] = Field(
        default=None,
        description="Tokens to remove at each layer, or a list with one count per layer.",
        examples=[8, [8, 8, 4, 4]],
    )
    r_hw: Annotated[Pair | None, BeforeValidator(numbers)] = Field(
        default=None,
        description="Rows and columns to remove at each layer, for methods that keep a grid.",
        examples=[[1, 1]],
    )
    layers: Annotated[LayerCounts | None, BeforeValidator(number_list)] = Field(
        default=None,
        description="Layers that may merge, counted from 0; the method's default if not sent.",
        examples=[[0, 1]],
    )
    schedule: Annotated[Word | float, BeforeValidator(numbers)] = Field(
        default="constant",
        description="constant, decreasing, increasing, or an inflection in [-1, 1].",
        examples=["decreasing", 0.5],
    )
    alpha: Annotated[Word | float | Weights, BeforeValidator(numbers)] = Field(
        default="increase",
        description="Weight of the visual term of ToSA: increase, decrease, uniform, auto, number, list.",
        examples=["increase", 0.5],
    )
    spatial_kernel: Word = Field(
        default="sinusoidal",
        description="How similarity falls with distance in the scene: sinusoidal, distance.",
        examples=["distance"],
    )
    options: Annotated[Options | None, BeforeValidator(json_object)] = Field(
        default=None,
        description="Options of the method, by name; GET /methods lists them.",
        examples=[{"tau": 0.8}],
    )
    prop_attn: bool | None = Field(
        default=None,
        description="Proportional attention; the method's default if not sent.",
        examples=[True],
    )
    target_ms: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Only with method=auto: milliseconds that an answer may take, by the calibration.",
        examples=[80],
    )
    target_accuracy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Only with method=auto: share of the accuracy without merging to keep; 0.98 without a "
        "target.",
        examples=[0.98],
    )
    order: Word = Field(
        default="raster",
        description="Order in which the language model reads the visual tokens: raster, merge.",
        examples=["raster"],
    )


class ViewFields(DepthFields):
    """Hold the fields that say how images are seen, and how long to wait."""

    depth: Literal["client", "estimate", "none"] | None = Field(
        default=None,
        description="Source of depth: client, the files of this request; estimate, the server's estimate of "
        "the image; none, row and column only. By default client if files are sent, else estimate.",
        examples=["estimate"],
    )
    views: Views | None = Field(
        default=None,
        description="How the model sees the images: auto, as its own processor makes views; single, each "
        "whole image squeezed into one view; anyres, the whole image and its tiles; video, all images as "
        "frames of one video. The model's default if not sent; not every model has all.",
        examples=["single"],
    )
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="Longest time to wait in seconds, if shorter than the server's.",
        examples=[2.5],
    )


class AskFields(ViewFields):
    """Hold the fields of a question that do not concern merging."""

    question: str = Field(
        description="The question about the images.", examples=["How many chairs are in the room?"]
    )
    max_new_tokens: int = Field(
        default=32,
        ge=1,
        le=LONGEST_ANSWER,
        description="Longest answer in tokens; the model's context and the server's limit may end it sooner.",
        examples=[16],
    )
    temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="0 decodes greedily; higher values are more random.",
        examples=[0],
    )
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the probability that tokens are sampled from.",
        examples=[0.9],
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Makes a sampled answer repeatable.", examples=[7]
    )
    cache: bool = Field(
        default=True,
        description="Whether encoded frames may be read from and written to the cache.",
        examples=[True],
    )
    confidence: bool = Field(
        default=False,
        description="Also answer with the probability that the model gives its answer.",
        examples=[False],
    )

    def generation_params(self) -> GenerationParams:
        """Return how the answer is to be decoded."""
        from vlm import GenerationParams  # and all of vlm with it, which inspecting depth does not need

        return GenerationParams(self.max_new_tokens, self.temperature, self.top_p, self.seed)


class VqaFields(MergeFields, AskFields, PosedFields):
    """Hold all fields of a question beside its files."""

    stream: bool = Field(
        default=False,
        description="Answer with server-sent events: pieces of the text, then the whole answer.",
        examples=[False],
    )

    def merge_spec(self, has_depth: bool) -> MergeSpec:
        """Return the MergeSpec, with the defaults of this service filled in."""
        method = self.method or ("tosa" if has_depth else "none")
        assert method != AUTO, "what auto stands for is decided before"
        has_budget = (self.keep_ratio, self.r, self.r_hw) != (None, None, None)
        is_default_ratio = METHODS[method].merges and not has_budget
        return MergeSpec(
            method=method,
            keep_ratio=DEFAULT_KEEP_RATIO if is_default_ratio else self.keep_ratio,
            r=tuple(self.r) if isinstance(self.r, list) else self.r,
            r_hw=(self.r_hw[0], self.r_hw[1]) if self.r_hw else None,
            schedule=self.schedule,
            layers=None if self.layers is None else tuple(self.layers),
            alpha=tuple(self.alpha) if isinstance(self.alpha, list) else self.alpha,
            spatial_kernel=self.spatial_kernel,  # type: ignore[arg-type]  # make_plan refuses other words
            prop_attn=self.prop_attn,
            order=self.order,  # type: ignore[arg-type]  # make_plan refuses other words
            options=self.options or {},
        )


class EpisodeFields(MergeFields, DepthFields, FramesFields):
    """Hold what is the same for all frames and questions of an episode."""

    depth: Literal["client", "estimate", "none"] | None = Field(
        default=None,
        description="Source of depth that guides merging inside frames, as in POST /vqa; only depth that is "
        "sent gives places.",
        examples=["client"],
    )


class FrameFields(PoseFields):
    """Hold the fields of one frame of an episode beside its files."""

    timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="Longest time to wait in seconds, if shorter than the server's.",
        examples=[2.5],
    )
    cache: bool = Field(
        default=True,
        description="Whether the encoded frame may be read from and written to the cache.",
        examples=[True],
    )


class MoveFields(BaseModel):
    """Hold new poses of the frames of an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    poses: Annotated[dict[str, Raw], Field(max_length=MOST_FRAMES), BeforeValidator(json_value)] = Field(
        description="Poses by the number of the frame, each as when the frame was pushed.",
        examples=[{"3": {"position": [0, 0, 1.5], "quaternion": [0, 0, 0, 1]}}],
    )
    convention: Literal[tuple(CONVENTIONS)] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="Axes of the camera in these poses, if not those of the episode.",
        examples=["opencv"],
    )


ASKED = (
    "question",
    "max_new_tokens",
    "temperature",
    "top_p",
    "seed",
    "timeout_s",
    "confidence",
    "stream",
)
QuestionFields = create_model(
    "QuestionFields",
    __config__=ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False),
    __doc__="Hold the fields of a question about an episode.",
    **{name: (VqaFields.model_fields[name].annotation, VqaFields.model_fields[name]) for name in ASKED},  # type: ignore[call-overload]
    places=(
        bool,
        Field(
            default=False,
            description="Also answer with the walk: cameras, the place and the frames of every token, and "
            "how much of its attention the answer gave it, for which the prompt is read once more.",
            examples=[True],
        ),
    ),
)


class ShowFields(BaseModel):
    """Hold the parameters of a look at an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    places: bool = Field(default=False, description="Also show the walk.")


class OverlayFields(MergeFields, ViewFields):
    """Hold the fields of a picture whose merging is to be shown."""

    values_px: ValuesPx = 0


MERGE_FIELDS = tuple(MergeFields.model_fields)
TARGETS = ("target_ms", "target_accuracy")
"""The fields of method=auto, beside which no other field about merging may stand."""


@dataclass(frozen=True)
class Output:
    """How answers are written: what chat completions ask for beyond the fields of a question.

    schema: what an answer matches, from the field `schema_field`. choices: how many answers. top_logprobs:
    alternatives to report for every token; None reports no probabilities.
    """

    schema: Mapping[str, Any] | None = None
    schema_field: str = "response_format"
    choices: int = 1
    top_logprobs: int | None = None


@dataclass(frozen=True)
class VqaRequest:
    """Hold one question: checked fields, and the bytes of its files in order, not decoded yet."""

    fields: VqaFields
    images: tuple[bytes, ...]
    depths: tuple[bytes, ...]
    turns: tuple[Turn, ...] | None = None  # a conversation; None: the question with its images in front
    output: Output = Output()
    image_names: tuple[str, ...] = ()  # where the client wrote each file
    depth_names: tuple[str, ...] = ()

    def image_name(self, at: int) -> str:
        """Return what the client calls an image, for errors."""
        return self.image_names[at] if self.image_names else "image"

    @property
    def merges_frames(self) -> bool:
        """Return whether tokens merge across the frames of this request."""
        return self.fields.has_geometry

    def depth_name(self, at: int) -> str:
        """Return what the client calls a depth file, for errors."""
        return self.depth_names[at] if self.depth_names else "depth"

    @property
    def wants_depth(self) -> bool:
        """Return whether the request uses depth: it names a source, or sends depth without depth=none."""
        word = self.fields.depth
        return bool(self.depths) if word is None else word != "none"


@dataclass(frozen=True)
class InspectRequest:
    """Hold a depth file to be inspected, maybe with the image that it goes with."""

    fields: InspectFields
    depth: bytes
    image: bytes | None
