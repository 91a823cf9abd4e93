"""The fields of frames with geometry, and of merging across frames."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from depth.conventions import CONVENTIONS
from service.request.coercion import MAX_ENTRIES, TEXT, number_list, read_json
from tosa.frames import DEFAULT_BUDGET, MERGE_FRAMES, FrameRule, MergeFrames

LEAST_VISUAL_TOKENS, MOST_VISUAL_TOKENS = 9, 1_000_000
MOST_FRAMES = 4096
_MOST_CHARS = 2**20

Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]
Raw = (
    Annotated[dict[Annotated[str, Field(max_length=32)], Any], Field(max_length=MAX_ENTRIES)]
    | Annotated[list[Any], Field(max_length=MOST_FRAMES)]
)


def json_value(value: object, info: ValidationInfo) -> object:
    """Read the text of a form as JSON; keep anything else, which is then refused as text."""
    if not isinstance(value, str) or info.context != TEXT or len(value) > _MOST_CHARS:
        return value
    try:
        return read_json(value)
    except ValueError:
        return value


class FramesFields(BaseModel):
    """Hold what is the same for all frames of an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    merge_frames: Literal[tuple(MERGE_FRAMES)] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=f"How tokens merge across frames: {', '.join(MERGE_FRAMES)}. none if geometry "
        "alone is sent.",
        examples=["seen", "cover"],
    )
    max_visual_tokens: int | None = Field(
        default=None,
        ge=LEAST_VISUAL_TOKENS,
        le=MOST_VISUAL_TOKENS,
        description="Most visual tokens of all frames together, separators included, which is exact; "
        f"{DEFAULT_BUDGET} if not sent, and no bound with merge_frames=none.",
        examples=[144],
    )
    convention: Literal[tuple(CONVENTIONS)] | None = Field(  # type: ignore[valid-type]
        default=None,
        description=f"Axes of the camera in poses: {', '.join(CONVENTIONS)}.",
        examples=["opencv", "ros_optical"],
    )
    intrinsics: Annotated[Raw | None, BeforeValidator(json_value)] = Field(
        default=None,
        description="Intrinsics of the images: fx, fy, cx, cy in pixels (with width and height if they are "
        "those of another size), or hfov, vfov in degrees. An object, or a list of one for each frame.",
        examples=[{"hfov": 90}, {"fx": 577.6, "fy": 578.7, "cx": 318.9, "cy": 242.7}],
    )
    depth_intrinsics: Annotated[Raw | None, BeforeValidator(json_value)] = Field(
        default=None,
        description="Intrinsics of the depth files, if these have others than the images, scaled.",
        examples=[{"fx": 577.6, "fy": 578.7, "cx": 318.9, "cy": 242.7}],
    )

    def frame_rule(self, separates: bool) -> FrameRule:
        """Return the rule of merging across frames. separates: the model has separators of images."""
        method: MergeFrames = self.merge_frames or "none"
        usual = None if method == "none" else DEFAULT_BUDGET
        return FrameRule(method, self.max_visual_tokens or usual, separates)


class PosedFields(FramesFields):
    """Hold the geometry of several frames of one request."""

    poses: Annotated[
        Annotated[list[Raw | None], Field(max_length=MOST_FRAMES)] | None, BeforeValidator(json_value)
    ] = Field(
        default=None,
        description="A pose for each image, camera to world: 4 x 4 or 16 numbers row by row, or position "
        "and quaternion; null where it is not known.",
        examples=[[{"position": [0, 0, 1.5], "quaternion": [0, 0, 0, 1]}]],
    )
    timestamps: Annotated[
        Annotated[list[Seconds | None], Field(max_length=MOST_FRAMES)] | None, BeforeValidator(number_list)
    ] = Field(
        default=None,
        description="When each image was taken, in seconds; never earlier than the one before.",
        examples=[[12.5]],
    )

    @property
    def has_geometry(self) -> bool:
        """Return whether the images are frames of an episode: anything about their geometry was sent."""
        return any(getattr(self, name) is not None for name in PosedFields.model_fields)


class PoseFields(BaseModel):
    """Hold the geometry of one frame."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pose: Annotated[Raw | None, BeforeValidator(json_value)] = Field(
        default=None,
        description="Pose of the camera, camera to world: 4 x 4 or 16 numbers row by row, or position and "
        "quaternion. Without one, what the frame shows has no place.",
        examples=[{"position": [0, 0, 1.5], "quaternion": [0, 0, 0, 1]}],
    )
    timestamp: Seconds | None = Field(
        default=None,
        description="When the image was taken, in seconds; not earlier than the frame before.",
        examples=[12.5],
    )
    intrinsics: Annotated[Raw | None, BeforeValidator(json_value)] = Field(
        default=None,
        description="Intrinsics of this image, if not those of the episode.",
        examples=[{"hfov": 90}],
    )
    depth_intrinsics: Annotated[Raw | None, BeforeValidator(json_value)] = Field(
        default=None,
        description="Intrinsics of this depth file, if not those of the episode.",
        examples=[{"fx": 577.6, "fy": 578.7, "cx": 318.9, "cy": 242.7}],
    )
