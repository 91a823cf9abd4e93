"""How a refusal looks over HTTP: its status, its headers, and its body in the shape of the address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.errors.naming import named, names_field
from service.errors.table import CODES
from service.request.schemas import MERGE_FIELDS

CHAT_PREFIX = "/v1/"
"""Addresses below this answer in the shape of OpenAI's API, errors too."""
PARAMS: Mapping[str, str] = {
    **{name: f"merge.{name}" for name in MERGE_FIELDS},
    **{f"depth_{name}": f"depth.{name}" for name in ("preset", "scale", "kind", "invalid", "key", "shape")},
    "image": "messages",
    "question": "messages",
    "max_new_tokens": "max_completion_tokens",
}
"""Where a field of a question stands in a chat request, if elsewhere."""


def status_of(refusal: ServiceError) -> int:
    """Return the HTTP status of a refusal."""
    return CODES[refusal.code].status


def headers_of(refusal: ServiceError) -> dict[str, str]:
    """Return the headers of an error: Retry-After, WWW-Authenticate and Allow."""
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    if refusal.code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.code == "method_not_allowed":
        headers["Allow"] = ", ".join(refusal.choices or ())
    return headers


def error_body(refusal: ServiceError, request_id: str, path: str) -> dict[str, Any]:
    """Return the body of a refusal in the shape that clients of this address read."""
    body = refusal.body(request_id)
    if not path.startswith(CHAT_PREFIX):
        return body
    error = body["error"]
    field = error.pop("field", None)
    param = field if refusal.code == "unknown_field" else PARAMS.get(field, field)
    return {
        "error": {
            "message": _renamed(error.pop("message"), field, param),
            "type": _type(status_of(refusal)),
            "param": param,
            **error,
        }
    }


def _renamed(message: str, field: str | None, param: str | None) -> str:
    """Name the parameter that was sent, where a sentence names our own field."""
    if field is not None and param is not None and not names_field(message, param):
        message = re.sub(rf"\b{re.escape(field)}\b", param, message) if "_" in field else message
    return named(message, param, None)


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
