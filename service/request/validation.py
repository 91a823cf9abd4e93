"""Check fields against a model and turn the first fault into a refusal; knows no files and no limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import ApiError
from service.objects import is_plain
from service.request.coercion import TEXT
from tosa import METHODS

FORM_FILES, JSON_FILES = ("image", "depth"), ("images", "depths")
DEPTH_SOURCES = ("client", "estimate", "none")
_CODES = {
    "method": "unknown_method",
    "keep_ratio": "keep_ratio_out_of_range",
    **dict.fromkeys(
        ("r", "r_hw", "layers", "schedule", "alpha", "spatial_kernel", "prop_attn", "order"), "bad_merge_spec"
    ),
    "options": "bad_option",
    "depth": "bad_depth",
    "depth_preset": "unknown_depth_preset",
    "depth_scale": "bad_depth_scale",
    "depth_kind": "bad_depth_kind",
    "depth_invalid": "bad_depth_invalid",
    "timeout_s": "bad_timeout",
    **dict.fromkeys(("max_new_tokens", "temperature", "top_p", "seed"), "bad_generation"),
}
_CHOICES = {"method": tuple(METHODS), "depth": DEPTH_SOURCES}

Fields = TypeVar("Fields", bound=BaseModel)


def validated(model: type[Fields], raw: Mapping[str, Any], *, strict: bool) -> Fields:
    """Return the fields of a model. `strict` refuses "8" for 8 and true for 1, for forms that know types.

    Raises ApiError.
    """
    files = JSON_FILES if strict else FORM_FILES
    for name in raw:  # pydantic would fail on a name with half a surrogate pair
        if name not in model.model_fields:
            raise unknown_field(name, files, model)
    try:
        # strict=False would also soften the fields that are strict by themselves.
        return model.model_validate(dict(raw), strict=strict or None, context=None if strict else TEXT)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise _refusal(errors[0]) from None


def unknown_field(name: str, files: Sequence[str], model: type[BaseModel]) -> ApiError:
    """Refuse a field nobody knows, naming those there are; its name is only repeated if it looks like one."""
    known = tuple(dict.fromkeys((*files, *model.model_fields)))  # depth is a file and a field
    return ApiError("unknown_field", field=name if is_plain(name) else None, choices=known)


def _refusal(error: ErrorDetails) -> ApiError:
    name, kind = str(error["loc"][0]), error["type"]
    if name == "question" and kind == "missing":
        return ApiError("empty_question", field="question")
    code = _CODES.get(name, "bad_request")
    reason = "value" if code == "bad_request" else f"bad_{name}"
    return ApiError(code, reason=reason, field=name, choices=_CHOICES.get(name))
