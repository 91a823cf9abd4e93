"""From the errors of our packages and of the web framework to ServiceError, in one place.

What PlanError, DepthError, EstimatorError and VlmError say to a caller comes through word for word, with
field, limit and choices. Of any other exception nothing is shown but its code.
"""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from depth import DepthError
from depth.estimate import EstimatorError
from service.errors import ServiceError
from tosa import PlanError
from vlm import VlmError

LibraryError = PlanError | DepthError | EstimatorError | VlmError
LIBRARY_ERRORS = (PlanError, DepthError, EstimatorError, VlmError)


def to_service_error(error: Exception) -> ServiceError:
    """Translate what our own packages and the web framework refuse; anything else is `internal`."""
    match error:
        case ServiceError():
            return error
        case DepthError():
            return _as_said(error, error.code)
        case PlanError():
            return _as_said(error, _PLAN_CODES.get(error.code, "bad_merge_spec"))
        case VlmError() if error.code in _VLM_CODES:
            return _as_said(error, _VLM_CODES[error.code])
        case EstimatorError() if error.code == "estimate_failed":
            return _as_said(error, "estimate_failed")
        case EstimatorError():  # of loading: it names folders
            return ServiceError("no_estimator", field=error.field)
        case RequestValidationError():
            return ServiceError("bad_request")
        case HTTPException():
            return ServiceError(_STATUS_CODES.get(error.status_code, "internal"))
        case _:
            return ServiceError("internal")


def _as_said(error: LibraryError, code: str) -> ServiceError:
    return ServiceError(
        code, sentence=str(error), field=error.field, limit=error.limit, choices=error.choices
    )


_PLAN_CODES: Mapping[str, str] = {
    "unknown_method": "unknown_method",
    "bad_keep_ratio": "keep_ratio_out_of_range",
    "keep_ratio_too_small": "keep_ratio_out_of_range",
    "unknown_option": "unknown_option",
    "bad_option": "bad_option",
    "incompatible": "incompatible_method",
}
_VLM_CODES: Mapping[str, str] = {
    "prompt_too_long": "prompt_too_long",
    "invalid_generation": "bad_generation",
    "unsupported_turns": "bad_turns",
}
_STATUS_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    422: "bad_request",
}
