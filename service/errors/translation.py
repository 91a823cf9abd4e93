"""From the errors of our packages and of the web framework to ServiceError, in one place.

The messages of PlanError, DepthError, EstimatorError and VlmError are passed on unchanged, with field, limit
and choices. Of any other exception only the code is shown.
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
    """Translate the errors of our packages and of the web framework; any other error is `internal`."""
    match error:
        case ServiceError():
            return error
        case DepthError():
            return _passed_on(error, error.code)
        case PlanError():
            return _passed_on(error, _PLAN_CODES.get(error.code, "bad_merge_spec"))
        case VlmError() if error.code in _VLM_CODES:
            return _passed_on(error, _VLM_CODES[error.code])
        case EstimatorError() if error.code == "estimate_failed":
            return _passed_on(error, "estimate_failed")
        case EstimatorError():  # of loading: it names folders
            return ServiceError("no_estimator", field=error.field)
        case RequestValidationError():
            return ServiceError("bad_request")
        case HTTPException(status_code=405):
            return _other_method(error)
        case HTTPException():
            return ServiceError(_STATUS_CODES.get(error.status_code, "internal"))
        case _:
            return ServiceError("internal")


def _passed_on(error: LibraryError, code: str) -> ServiceError:
    return ServiceError(
        code, sentence=str(error), field=error.field, limit=error.limit, choices=error.choices
    )


def _other_method(error: HTTPException) -> ServiceError:
    """Name the methods of the address; HEAD is answered wherever GET is."""
    methods = sorted(name.strip() for name in (error.headers or {}).get("Allow", "").split(",") if name)
    if "GET" in methods:
        methods = sorted({*methods, "HEAD"})
    sentence = f"This address takes {' and '.join(methods)}, no other HTTP method." if methods else None
    return ServiceError("method_not_allowed", sentence=sentence, choices=methods or None)


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
    "unsupported_image": "unsupported_image",
    "unsupported_views": "unsupported_views",
    "invalid_schema": "bad_schema",
}
_STATUS_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    415: "unsupported_media_type",
    422: "bad_request",
}
