"""What a client gets back beside an answer: refusals, inspected depth files, comparisons."""

from __future__ import annotations

from typing import Any

from service.pipeline.response_models import (
    Answered,
    DepthInspection,
    DepthUsed,
    DepthValues,
    MergeDone,
    ModelUsed,
    ResponseModel,
    described_field,
)
from service.request.schemas import MergeFields
from service.timing import TimingsMs


class ErrorDetail(ResponseModel):
    """Describe why a request was refused; `field`, `choices` and `limit` are optional."""

    code: str = described_field("Stable name of the refusal, for programs.", "unknown_method")
    message: str = described_field("One sentence for people.", "There is no such merging method.")
    request_id: str = described_field(
        "Name of the request, as in X-Request-ID and the server's log.", "robot-7.0042"
    )
    field: str | None = described_field("The field that is wrong.", "method", default=None)
    choices: list[str] | None = described_field(
        "The accepted values.", ["none", "tome", "tosa"], default=None
    )
    limit: int | float | None = described_field("The bound that was passed.", 8, default=None)


class ErrorResponse(ResponseModel):
    """Refuse a request."""

    error: ErrorDetail = described_field("Why the request was refused.")


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {kind: {"model": ErrorResponse} for kind in ("4XX", "5XX")}
"""Errors of an address, for the generated documentation."""


class Inspected(DepthInspection):
    """Describe how a depth file was interpreted."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    picture: str | None = described_field("PNG of the depth in base64, if asked for.", "iVBORw0KGgo=")
    values: DepthValues | None = described_field("The depth as numbers, if asked for.", default=None)


class OverlayLayer(ResponseModel):
    """Hold the groups that a layer leaves behind."""

    layer: int = described_field("The layer, counted from 0.", 3)
    groups: list[int] = described_field(
        "Group of each patch, row by row; groups are numbered by their first patch, -1 is a dropped patch.",
        [0, 0, 1],
    )
    sizes: list[int] = described_field("Patches of each group.", [2, 1])


class OverlayView(ResponseModel):
    """Show the merging in one view of the picture."""

    box: tuple[float, float, float, float] = described_field(
        "Left, top, right and bottom of the view, as shares of the picture's width and height; padding is "
        "outside of 0 to 1.",
        [0, 0, 1, 1],
    )
    grid: tuple[int, int] = described_field(
        "Rows and columns of patches, or of the cells that a model reads as one token.", [24, 24]
    )
    depth: list[float | None] | None = described_field(
        "Mean depth of each patch, in depth.unit; null where it has no valid pixel. Null as a whole where no "
        "depth is known.",
        [1.8, None],
    )
    layers: list[OverlayLayer] = described_field(
        "Layers whose groups differ from those before them. Before the first, every patch is its own group."
    )


class OverlayResponse(ResponseModel):
    """Show which patches of a picture became one token."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    model: ModelUsed = described_field("The model whose encoder ran.")
    merge: MergeDone = described_field("What merging did.")
    depth: DepthUsed | None = described_field(
        "Which depth guided the merging; null if none did and none was sent."
    )
    tokens: list[int] = described_field(
        "Visual tokens of one view at the entry of every layer, and at the end.", [576, 420, 144]
    )
    views: list[OverlayView] = described_field("One for each view of the picture.")
    values: DepthValues | None = described_field(
        "The depth of the whole picture as numbers, if it was asked for and is known.", default=None
    )
    timings_ms: TimingsMs = described_field("Time of each stage in milliseconds.")


class ComparedAnswer(Answered):
    """Answer the question with one of the settings."""

    spec: MergeFields = described_field("The settings as they were sent.")


class ComparedRefusal(ResponseModel):
    """Hold one spec and the error it was refused with."""

    spec: MergeFields = described_field("The settings as they were sent.")
    error: ErrorDetail = described_field("Why they were refused.")


class CompareResponse(ResponseModel):
    """Answer one question with several merge settings, side by side."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    model: ModelUsed = described_field("The model that answered.")
    question: str = described_field("The question.", "How many chairs are in the room?")
    results: list[ComparedAnswer | ComparedRefusal] = described_field("One for each of the specs, in order.")
    baseline: int | None = described_field(
        "Index of the first answer without merging; null if there is none.", 0
    )
    agree: list[bool | None] = described_field(
        "Whether each answer equals the baseline's; null where one of both is missing.", [True, True, None]
    )
