"""Refuse what a request says wrongly, field by field. Decodes no file and plans nothing."""

from collections.abc import Mapping
from typing import Any

from service.api.json_body import is_unicode
from service.errors import ApiError
from service.request.schemas import VqaFields, VqaRequest
from service.request.validation import validated
from service.settings import Settings
from tosa import METHODS


def check_fields(raw: Mapping[str, Any], settings: Settings, *, strict: bool) -> VqaFields:
    """Check the fields of a question against their bounds and the limits of this process.

    `strict` as for `validated`. Raises ApiError, DepthError.
    """
    fields = validated(VqaFields, raw, strict=strict)
    if not is_unicode(fields.question):
        raise ApiError("bad_request", reason="value", field="question")
    if not fields.question.strip():
        raise ApiError("empty_question", field="question")
    if len(fields.question) > settings.max_question_chars:
        raise ApiError("question_too_long", field="question", limit=settings.max_question_chars)
    if fields.max_new_tokens > settings.max_answer_tokens:
        raise ApiError("bad_generation", field="max_new_tokens", limit=settings.max_answer_tokens)
    if fields.method is not None and fields.method not in METHODS:
        raise ApiError("unknown_method", field="method", choices=tuple(METHODS))
    fields.check_reading()
    return fields


def check_counts(asked: VqaRequest, settings: Settings) -> None:
    """Check the number of files, and that depth can come from where it shall. Raises ApiError."""
    if not 1 <= len(asked.images) <= settings.max_images:
        raise ApiError("image_count", field="image", limit=settings.max_images)
    if len(asked.depths) not in (0, len(asked.images)):
        raise ApiError("depth_count", field="depth")
    if asked.fields.depth == "client" and not asked.depths:
        raise ApiError("depth_count", reason="nothing_sent", field="depth")
    if asked.fields.depth == "estimate" and not settings.estimates_depth:
        raise ApiError("estimate_off", field="depth", choices=("client", "none"))
