"""The response as values: what the pipeline makes, telemetry and command line read, and HTTP serialises."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.timing import TimingsMs


def described_field(description: str, *examples: Any, **more: Any) -> Any:
    """Describe a field of a response, with examples."""
    return Field(description=description, examples=list(examples) or None, **more)


class ResponseModel(BaseModel):
    """Be a part of a response. Serialise it with `exclude_unset`: a field that was not set is left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ModelUsed(ResponseModel):
    """Name the model that answered."""

    id: str = described_field("Name of the model.", "room-tiny")
    revision: str = described_field("Its revision, or a digest of its weights.", "0123456789abcdef")


class MergeDone(ResponseModel):
    """Describe the merging; token counts are sums over images. Fields after prop_attn may be left out."""

    method: str = described_field("Method that merged.", "tosa")
    keep_ratio: float = described_field("Share of visual tokens that was kept in fact.", 0.25)
    tokens_in: int = described_field("Visual tokens before merging, of all views.", 576)
    tokens_out: int = described_field("Visual tokens after merging, of all views.", 144)
    vit_flops_ratio: float = described_field(
        "Floating-point operations of the encoder, relative to no merging.", 0.61
    )
    saves: list[str] = described_field(
        "What merging saved: vit, work of the encoder; lm, tokens that the language model reads.",
        ["vit", "lm"],
    )
    prop_attn: bool = described_field("Whether proportional attention was on.", True)
    r: int | list[int] | None = described_field("Tokens removed at each layer.", 8, default=None)
    r_hw: tuple[int, int] | None = described_field(
        "Rows and columns removed at each layer.", [1, 1], default=None
    )
    layers: list[int] | None = described_field(
        "Layers where tokens were removed, unless any layer may.", [0, 1, 2], default=None
    )
    alpha: str | float | list[float] | None = described_field(
        "Weight of the visual term.", "increase", default=None
    )
    spatial_kernel: str | None = described_field(
        "How similarity fell with distance.", "sinusoidal", default=None
    )
    options: dict[str, int | float | str | None] | None = described_field(
        "All options of the method, as they were used.", {"tau": 0.8}, default=None
    )
    chosen_because: str | None = described_field(
        "Why method=auto chose this method.",
        "the picture has noise of 3 of 255, as clean pictures (3); tome keep_ratio 0.25 is the fastest that "
        "keeps 98 % of the accuracy without merging of 7 settings: 94.0 % right in 61 ms, none: 93.5 % in "
        "118 ms (calibrated 2026-11-30)",
        default=None,
    )


class ViewsUsed(ResponseModel):
    """Say how the encoder saw one picture, or one video."""

    kind: str = described_field(
        "single: the whole picture squeezed to the proportions of the encoder; native: as the model's own "
        "processor makes one view; anyres: the whole picture and tiles of it; video: frames.",
        "single",
    )
    count: int = described_field("Views: each one went through the encoder.", 1)
    grid: tuple[int, int] = described_field("Patches of a view before merging: rows, columns.", [24, 24])
    tiles: tuple[int, int] = described_field("Rows and columns of tiles among the views.", [0, 0])
    tokens: int = described_field(
        "Tokens that the language model read of it, separators of rows and images included.", 145
    )


class Guessed(ResponseModel):
    """Hold an assumption about a depth file: the field that was not sent, and how it was guessed."""

    field: str = described_field("What was guessed.", "scale")
    sentence: str = described_field("How.", "Integers were taken as millimetres.")


class DepthNote(ResponseModel):
    """Hold a doubt about a depth file that was accepted, or a decision about its numbers."""

    code: str = described_field("Stable name of the note.", "few_valid")
    sentence: str = described_field("The note.", "Less than a tenth of the pixels are valid.")


class DepthUnderstood(ResponseModel):
    """Describe how depth was interpreted."""

    kind: str | None = described_field(
        "metric, inverse (grows towards the camera) or relative (an order without a unit).", "metric"
    )
    unit: str | None = described_field("m, 1/m or null.", "m")
    range: tuple[float, float] | None = described_field(
        "Nearest and farthest valid value, in that unit or else in the file's own numbers, of which the "
        "nearest may be the larger one.",
        [0.5, 4.2],
    )
    scale: float | None = described_field("Numbers of the file that make one unit.", 1000)
    preset: str | None = described_field("The depth_preset that was sent.", "scannet")
    valid_ratio: float | None = described_field("Share of pixels that are not holes.", 0.98)
    guessed: list[Guessed] = described_field("What the request did not say, and how it was guessed.")
    notes: list[DepthNote] = described_field(
        "Doubts about the files, which were accepted nevertheless, and what 0 was taken for in 8 bits."
    )


class Estimator(ResponseModel):
    """Name the depth estimator."""

    id: str = described_field("Name of the estimator.", "room-depth-tiny")
    revision: str = described_field("Its revision, or a digest of its weights.", "0123456789abcdef")
    licence: str | None = described_field("Its licence; null: its card names none.", "apache-2.0")


class DepthUsed(DepthUnderstood):
    """Describe the depth that guided the merging, or the files that were read although nothing used them.

    Of several images: kind mixed, and unit, range, scale and preset null, where the images differ; the mean
    valid_ratio; every guess and every note once.
    """

    source: str = described_field(
        "client, estimate, none (row and column only), or unused (a file was sent, and the method uses no "
        "depth).",
        "client",
    )
    estimator: Estimator | None = described_field("Who estimated the depth; null unless source is estimate.")
    cached: bool | None = described_field(
        "Whether all estimates came from the cache; null unless source is estimate.", True
    )


class DepthInspection(DepthUnderstood):
    """Describe how a depth file was interpreted."""

    format: str = described_field("Format of the file.", "png")
    dtype: str = described_field("Type of its numbers.", "uint16")
    height: int = described_field("Height in pixels.", 480)
    width: int = described_field("Width in pixels.", 640)
    median: float = described_field("Median of the valid pixels, as range.", 1.9)
    same_aspect: bool | None = described_field(
        "true if an image was sent and has the same proportions; null without one. Whether both show the "
        "same view is not known: see the note maybe_unaligned.",
        True,
    )


class FrameKept(ResponseModel):
    """Say what is left of one frame of an episode."""

    frame: int = described_field("Its number, from 0, in the order in which frames came.", 3)
    timestamp: float | None = described_field("When it was taken, in seconds; null if not sent.", 12.5)
    held: int = described_field("Tokens of it that are held for questions.", 40)
    placed: int = described_field("Those that have a place in the world.", 38)
    kept: int = described_field("Tokens of it that the language model read, or that lead what it read.", 12)


class WalkCamera(ResponseModel):
    """Say where the camera of a frame was; its axes are unit vectors of the world."""

    frame: int = described_field("Number of the frame.", 3)
    position: tuple[float, float, float] = described_field("Its place in metres.", [0.5, 0, 1.5])
    forward: tuple[float, float, float] = described_field("Where it looked.", [1, 0, 0])
    up: tuple[float, float, float] = described_field("What was up in its picture.", [0, 0, 1])


class WalkToken(ResponseModel):
    """Describe a visual token that the language model reads of an episode."""

    place: tuple[float, float, float] | None = described_field(
        "Where it is in the world, in metres; null without depth or pose.", [1.2, 0.4, 0.8]
    )
    frames: list[int] = described_field(
        "Frames whose tokens merged into it; one if tokens are chosen and not merged.",
        [3, 5],
    )
    attention: float | None = described_field(
        "Share of the attention of the language model that it got while the answer was written: the mean "
        "over the tokens of the answer, layers and heads; all tokens together add up to 1. null: "
        "nothing was asked, or a language server answered, which does not tell.",
        0.0042,
    )


class EpisodeWalk(ResponseModel):
    """Show an episode in its world: where cameras were, and what is remembered where."""

    cameras: list[WalkCamera] = described_field("Frames with a pose, in order.")
    tokens: list[WalkToken] = described_field("Tokens that a question reads, in the order of the prompt.")


class EpisodeUsed(ResponseModel):
    """Say how tokens merged across frames, and what is left of each frame."""

    id: str | None = described_field("The episode; null where the frames came with the question.", "0" * 32)
    merge_frames: str = described_field("Method across frames.", "cover")
    max_visual_tokens: int | None = described_field("Budget for all frames; null: no bound.", 144)
    visual_tokens: int = described_field("Visual tokens that were read, separators included.", 144)
    frames: int = described_field("Frames that came.", 8)
    tokens: int = described_field("Tokens held, of which a question reads at most the budget.", 1104)
    cell_m: float = described_field("Side of the cells that a full memory was thinned by, in metres.", 0.2)
    agreement: float | None = described_field(
        "Share of what overlapping frames both see that lies at the same place, 0 to 1; null before two "
        "frames overlapped.",
        0.93,
    )
    kept: list[FrameKept] = described_field("Frames of which tokens are held, in order.")
    notes: list[DepthNote] = described_field(
        "Doubts about poses, intrinsics and units, and why frames have no places."
    )
    walk: EpisodeWalk | None = described_field(
        "Cameras and tokens in the world; left out unless places were asked for.", default=None
    )


class DepthValues(ResponseModel):
    """Hold a depth map as numbers, every n-th row and column of it."""

    height: int = described_field("Rows.", 96)
    width: int = described_field("Columns.", 128)
    values: list[float | None] = described_field(
        "Row by row, in depth.unit or else in the file's own numbers; null is a hole.", [1.82, None]
    )


class Usage(ResponseModel):
    """Count the tokens of the language model."""

    prompt_tokens: int = described_field("Tokens read, visual tokens included.", 160)
    completion_tokens: int = described_field("Tokens generated.", 2)


class Answered(ResponseModel):
    """Hold an answer and how it was made, without request id and model."""

    answer: str = described_field("The answer.", "2")
    confidence: float | None = described_field(
        "Probability of the answer before temperature: the product over its tokens. Left out unless asked "
        "for.",
        0.93,
        default=None,
    )
    merge: MergeDone = described_field("What merging did.")
    views: list[ViewsUsed] = described_field("How each picture, or the video, was seen, in order.")
    depth: DepthUsed | None = described_field(
        "Which depth guided the merging; null if none did and none was sent."
    )
    usage: Usage = described_field("Tokens of the language model.")
    finish_reason: Literal["stop", "length"] = described_field("length: cut off at max_new_tokens.", "stop")
    cached: bool = described_field("Whether every frame came from the cache, so that no encoder ran.", False)
    batch_size: int = described_field("Questions in the same batch, this one included.", 1)
    episode: EpisodeUsed | None = described_field(
        "How tokens merged across frames; left out where they did not.", default=None
    )
    timings_ms: TimingsMs = described_field("Time of each stage in milliseconds.")


class VqaResponse(Answered):
    """Hold the answer to a question, and how it was made."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    model: ModelUsed = described_field("The model that answered.")
