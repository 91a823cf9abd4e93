"""What a client gets back beside an answer: refusals, inspected depth files, comparisons."""

from __future__ import annotations

from service.pipeline.response_models import Answered, DepthInspection, ModelUsed, ResponseModel, told
from service.request.schemas import MergeFields


class ErrorDetail(ResponseModel):
    """Say why a request was refused; `field`, `choices` and `limit` only where they help."""

    code: str = told("Stable name of the refusal, for programs.", "unknown_method")
    message: str = told("One sentence for people.", "There is no such merging method.")
    request_id: str = told("Name of the request, as in X-Request-ID and the server's log.", "robot-7.0042")
    field: str | None = told("The field that is wrong.", "method", default=None)
    choices: list[str] | None = told("What may stand there.", ["none", "tome", "tosa"], default=None)
    limit: int | float | None = told("The bound that was passed.", 8, default=None)


class ErrorResponse(ResponseModel):
    """Refuse a request."""

    error: ErrorDetail = told("Why the request was refused.")


class Inspected(DepthInspection):
    """Say what a depth file was understood as, or would have been refused for."""

    request_id: str = told("Name of the request, as in X-Request-ID.", "robot-7.0042")
    picture: str | None = told("PNG of the depth in base64, if asked for.", "iVBORw0KGgo=")


class ComparedAnswer(Answered):
    """Answer the question with one of the settings."""

    spec: MergeFields = told("The settings as they were sent.")


class ComparedRefusal(ResponseModel):
    """Say why the question could not be answered with one of the settings."""

    spec: MergeFields = told("The settings as they were sent.")
    error: ErrorDetail = told("Why they were refused.")


class CompareResponse(ResponseModel):
    """Answer one question with several merge settings, side by side."""

    request_id: str = told("Name of the request, as in X-Request-ID.", "robot-7.0042")
    model: ModelUsed = told("The model that answered.")
    question: str = told("The question.", "How many chairs are in the room?")
    results: list[ComparedAnswer | ComparedRefusal] = told("One for each of the specs, in order.")
    baseline: int | None = told("Index of the first answer without merging; null if there is none.", 0)
    agree: list[bool | None] = told(
        "Whether each answer equals the baseline's; null where one of both is missing.", [True, True, None]
    )
