"""Every refusal this service can answer: one fixed table, so that no exception's own text reaches a client.

A code is stable; a reason only chooses a more helpful sentence for the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from depth import DepthError
from depth.errors import REASONS as DEPTH_REASONS
from tosa import METHODS, PlanError
from vlm import VlmError


@dataclass(frozen=True)
class ErrorKind:
    """Say how a code is answered: HTTP status, and the sentence for people."""

    status: int
    message: str


ERRORS: Mapping[str, ErrorKind] = MappingProxyType(
    {
        "bad_request": ErrorKind(400, "The request could not be read. Send multipart/form-data or JSON."),
        "not_found": ErrorKind(404, "There is nothing at this address. GET / lists what there is."),
        "method_not_allowed": ErrorKind(405, "This address does not take this HTTP method."),
        "request_timeout": ErrorKind(408, "The request body took too long to arrive."),
        "body_too_large": ErrorKind(413, "The request body is larger than this server accepts."),
        "image_too_large": ErrorKind(413, "The image has more pixels than this server accepts."),
        "depth_too_large": ErrorKind(413, "The depth map has more pixels than this server accepts."),
        "unsupported_media_type": ErrorKind(415, "Send multipart/form-data or application/json."),
        "unknown_field": ErrorKind(422, "The request has a field this server does not know."),
        "bad_image": ErrorKind(422, "The image could not be read: send a whole JPEG, PNG or WebP."),
        "image_count": ErrorKind(422, "Send at least one image, and no more than this server accepts."),
        "bad_depth": ErrorKind(422, "The depth could not be read."),
        "bad_depth_scale": ErrorKind(422, "depth_scale is units per metre and must lie in [1e-6, 1e6]."),
        "depth_count": ErrorKind(422, "Send no depth at all or one depth map for each image, in order."),
        "depth_shape_mismatch": ErrorKind(422, "The depth map does not show the same view as its image."),
        "depth_required": ErrorKind(
            422, "This method needs depth: send a depth map, or choose another method."
        ),
        "empty_question": ErrorKind(422, "The question is empty."),
        "question_too_long": ErrorKind(422, "The question is longer than this server accepts."),
        "prompt_too_long": ErrorKind(
            422, "Question and visual tokens together are longer than the model can read: keep fewer tokens."
        ),
        "unknown_method": ErrorKind(422, "There is no such merging method."),
        "keep_ratio_out_of_range": ErrorKind(422, "keep_ratio must be above 0 and at most 1."),
        "bad_merge_spec": ErrorKind(422, "The merging options do not fit together or this model."),
        "bad_generation": ErrorKind(422, "The generation options are out of range."),
        "internal": ErrorKind(500, "Something went wrong on our side; the log has the request id."),
        "overloaded": ErrorKind(503, "Too many requests are waiting. Try again later."),
        "not_ready": ErrorKind(503, "The model is not ready yet."),
    }
)

REASONS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("bad_request", "json"): "The body is not a valid JSON object in UTF-8.",
        ("bad_request", "multipart"): "The body is not valid multipart/form-data.",
        ("bad_request", "base64"): "This field must hold a list of base64 strings.",
        ("bad_request", "not_a_file"): "This field must be sent as a file.",
        ("bad_request", "not_text"): "This field must be UTF-8 text and sent at most once.",
        ("bad_request", "value"): "The value of this field has the wrong type or is out of range.",
        ("bad_image", "format"): "This is not a JPEG, PNG or WebP file.",
        ("bad_image", "animated"): "The image is animated: send one frame.",
        ("bad_image", "sixteen_bit"): "This is a 16-bit grey image: if it is a depth map, send it as depth.",
        ("keep_ratio_out_of_range", "keep_ratio_too_small"): (
            "keep_ratio is too small for this model: a layer can merge away at most half of its tokens."
        ),
        ("bad_merge_spec", "one_dial"): "Send exactly one of keep_ratio and r with this method.",
        ("bad_merge_spec", "nothing_to_remove"): "Method none removes nothing: leave keep_ratio and r out.",
        ("bad_merge_spec", "bad_r"): "r must be one count, or one count for each layer, and not negative.",
        ("bad_merge_spec", "bad_schedule"): (
            "schedule is constant, decreasing, increasing or a number in [-1, 1]; not with a list of r."
        ),
        ("bad_merge_spec", "bad_alpha"): (
            "alpha is increase, decrease, uniform, one number in [0, 1], or one for each layer."
        ),
        ("bad_merge_spec", "bad_order"): "order is raster or merge.",
        ("bad_merge_spec", "bad_prop_attn"): "prop_attn is true or false.",
        ("not_ready", "failed"): "The model could not be loaded; the log says why.",
        **{(code, reason): message for reason, (code, message) in DEPTH_REASONS.items()},
    }
)


class ApiError(Exception):
    """Refuse a request with a code of ERRORS; the rest is optional and safe to show to a client."""

    def __init__(
        self,
        code: str,
        *,
        reason: str = "",
        field: str | None = None,
        choices: Sequence[str] | None = None,
        limit: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code)
        self.kind = ERRORS[code]
        self.code, self.field, self.choices, self.limit = code, field, choices, limit
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.message = REASONS.get((code, reason), self.kind.message)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body; `field`, `choices` and `limit` are left out where they say nothing."""
        error = {
            "code": self.code,
            "message": self.message,
            "request_id": request_id,
            "field": self.field,
            "choices": None if self.choices is None else list(self.choices),
            "limit": self.limit,
        }
        return {"error": {key: value for key, value in error.items() if value is not None}}


def to_api_error(error: Exception) -> ApiError:
    """Translate what our own packages and the web framework refuse; anything else is `internal`."""
    match error:
        case ApiError():
            return error
        case DepthError():
            return ApiError(error.code, reason=error.reason, field=error.field)
        case PlanError():
            return _from_plan(error)
        case VlmError():
            return ApiError(_VLM_CODES.get(error.code, "internal"))
        case RequestValidationError():
            return ApiError("bad_request")
        case HTTPException():
            return ApiError(_STATUS_CODES.get(error.status_code, "internal"))
        case _:
            return ApiError("internal")


def _from_plan(error: PlanError) -> ApiError:
    if error.code == "unknown_method":
        return ApiError("unknown_method", field="method", choices=tuple(METHODS))
    is_range = error.code in ("bad_keep_ratio", "keep_ratio_too_small")
    code = "keep_ratio_out_of_range" if is_range else "bad_merge_spec"
    return ApiError(code, reason=error.code, field=error.field)


_VLM_CODES = {"prompt_too_long": "prompt_too_long", "invalid_generation": "bad_generation"}
_STATUS_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "bad_request",
}
