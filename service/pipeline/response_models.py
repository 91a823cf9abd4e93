"""The response as values: what the pipeline makes, telemetry and command line read, and HTTP serialises."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.timing import TimingsMs


def told(description: str, *examples: Any, **more: Any) -> Any:
    """Describe a field of a response, with examples."""
    return Field(description=description, examples=list(examples) or None, **more)


class ResponseModel(BaseModel):
    """Be a part of a response. Serialise it with `exclude_unset`: a field that was not set is left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ModelUsed(ResponseModel):
    """Name the model that answered."""

    id: str = told("Name of the model.", "room-tiny")
    revision: str = told("Its revision, or a digest of its weights.", "0123456789abcdef")


class MergeDone(ResponseModel):
    """Say what merging did, token counts summed over images. From r on, a field is there where it acted."""

    method: str = told("Method that merged.", "tosa")
    keep_ratio: float = told("Share of visual tokens that was kept in fact.", 0.25)
    tokens_in: int = told("Visual tokens before merging.", 576)
    tokens_out: int = told("Visual tokens that the language model read.", 144)
    vit_flops_ratio: float = told("Floating-point operations of the encoder, relative to no merging.", 0.61)
    prop_attn: bool = told("Whether proportional attention was on.", True)
    r: int | list[int] | None = told("Tokens removed at each layer.", 8, default=None)
    r_hw: tuple[int, int] | None = told("Rows and columns removed at each layer.", [1, 1], default=None)
    layers: list[int] | None = told(
        "Layers where tokens were removed, unless any layer may.", [0, 1, 2], default=None
    )
    alpha: str | float | list[float] | None = told("Weight of the visual term.", "increase", default=None)
    spatial_kernel: str | None = told("How similarity fell with distance.", "sinusoidal", default=None)
    options: dict[str, int | float | str | None] | None = told(
        "All options of the method, as they were used.", {"tau": 0.8}, default=None
    )


class Guessed(ResponseModel):
    """Name what nobody said about a depth file, and say how it was guessed."""

    field: str = told("What was guessed.", "scale")
    sentence: str = told("How.", "Integers were taken as millimetres.")


class DepthUnderstood(ResponseModel):
    """Say what depth was understood as."""

    kind: str | None = told(
        "metric, inverse (grows towards the camera) or relative (an order without a unit).", "metric"
    )
    unit: str | None = told("m, 1/m or null.", "m")
    range: tuple[float, float] | None = told(
        "Nearest and farthest valid value, in that unit or in the numbers given.", [0.5, 4.2]
    )
    scale: float | None = told("Numbers of the file that make one unit.", 1000)
    preset: str | None = told("The depth_preset that was sent.", "scannet")
    valid_ratio: float | None = told("Share of pixels that are not holes.", 0.98)
    guessed: list[Guessed] = told("What the request did not say, and how it was guessed.")


class Estimator(ResponseModel):
    """Name the depth estimator."""

    id: str = told("Name of the estimator.", "room-depth-tiny")
    revision: str = told("Its revision, or a digest of its weights.", "0123456789abcdef")
    licence: str | None = told("Its licence; null: its card names none.", "apache-2.0")


class DepthUsed(DepthUnderstood):
    """Say which depth steered the merging.

    Of several images: kind mixed, and unit, range, scale and preset null, where the images differ; the mean
    valid_ratio; every guess once.
    """

    source: str = told("client, estimate, or none (row and column only).", "client")
    estimator: Estimator | None = told("Who estimated the depth; null unless source is estimate.")
    cached: bool | None = told(
        "Whether all estimates came from the cache; null unless source is estimate.", True
    )


class DepthInspection(DepthUnderstood):
    """Say what a depth file was understood as."""

    format: str = told("Format of the file.", "png")
    dtype: str = told("Type of its numbers.", "uint16")
    height: int = told("Height in pixels.", 480)
    width: int = told("Width in pixels.", 640)
    median: float = told("Median of the valid pixels, as range.", 1.9)
    notes: list[str] = told(
        "Warnings about the file, which was accepted nevertheless.",
        ["Less than a tenth of the depth is valid."],
    )
    same_view: bool | None = told(
        "true if an image was sent and shows the same view; null without one.", True
    )


class Usage(ResponseModel):
    """Count the tokens of the language model."""

    prompt_tokens: int = told("Tokens read, visual tokens included.", 160)
    completion_tokens: int = told("Tokens generated.", 2)


class Answered(ResponseModel):
    """Hold an answer and what was done for it, without the names of request and model."""

    answer: str = told("The answer.", "2")
    merge: MergeDone = told("What merging did.")
    depth: DepthUsed | None = told(
        "Which depth guided the merging; null if none did, even if depth was sent."
    )
    usage: Usage = told("Tokens of the language model.")
    finish_reason: Literal["stop", "length"] = told("length: cut off at max_new_tokens.", "stop")
    cached: bool = told("Whether every frame came from the cache, so that no encoder ran.", False)
    batch_size: int = told("Questions in the same batch, this one included.", 1)
    timings_ms: TimingsMs = told("Time of each stage in milliseconds.")


class VqaResponse(Answered):
    """Answer a question and say what was done for it."""

    request_id: str = told("Name of the request, as in X-Request-ID.", "robot-7.0042")
    model: ModelUsed = told("The model that answered.")
