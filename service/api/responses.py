"""What a client gets back beside an answer: refusals, inspected depth files, comparisons."""

from __future__ import annotations

from service.pipeline.response_models import (
    Answered,
    DepthInspection,
    ModelUsed,
    ResponseModel,
    described_field,
)
from service.request.schemas import MergeFields


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


class Inspected(DepthInspection):
    """Describe how a depth file was interpreted."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    picture: str | None = described_field("PNG of the depth in base64, if asked for.", "iVBORw0KGgo=")


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
