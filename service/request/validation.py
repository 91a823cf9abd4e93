"""Check fields against a pydantic model, and raise a ServiceError for the first invalid one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from depth.conventions import CONVENTIONS
from depth.presets import KINDS, PRESET_NAMES
from service.errors import ServiceError
from service.request.bounds import what_is_wrong
from service.request.coercion import TEXT, is_unicode
from service.request.schemas import AUTO, MERGE_FIELDS, TARGETS, VIEWS, VqaFields, VqaRequest
from service.settings import Settings
from tosa import KERNELS, METHODS, UnknownMethod
from tosa.frames import MERGE_FRAMES
from tosa.spec import ORDERS

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
    "depth_key": "bad_depth_key",
    "depth_shape": "bad_depth_shape",
    "views": "unsupported_views",
    "merge_frames": "bad_merge_frames",
    "max_visual_tokens": "bad_merge_frames",
    "convention": "bad_convention",
    "pose": "bad_pose",
    "poses": "bad_pose",
    "intrinsics": "bad_intrinsics",
    "depth_intrinsics": "bad_intrinsics",
    "timestamp": "bad_timestamp",
    "timestamps": "bad_timestamp",
    "timeout_s": "bad_timeout",
    **dict.fromkeys(TARGETS, "bad_target"),
    **dict.fromkeys(("max_new_tokens", "temperature", "top_p", "seed"), "bad_generation"),
}
_CHOICES = {
    "method": (*METHODS, AUTO),
    "depth": DEPTH_SOURCES,
    "depth_preset": PRESET_NAMES,
    "depth_kind": KINDS,
    "order": ORDERS,
    "views": VIEWS,
    "merge_frames": tuple(MERGE_FRAMES),
    "convention": tuple(CONVENTIONS),
    "spatial_kernel": KERNELS,
}

Fields = TypeVar("Fields", bound=BaseModel)


def validated(
    model: type[Fields], raw: Mapping[str, Any], *, strict: bool, codes: Mapping[str, str] = _CODES
) -> Fields:
    """Return the fields of a model. `strict` refuses "8" for 8 and true for 1, for forms that know types.

    codes: of errors by field, bad_request for others. Raises ServiceError.
    """
    files = JSON_FILES if strict else FORM_FILES
    for name in raw:  # pydantic would fail on a name with half a surrogate pair
        if name not in model.model_fields:
            raise unknown_field(name, files, model)
    try:
        # strict=False would also soften the fields that are strict by themselves.
        return model.model_validate(dict(raw), strict=strict or None, context=None if strict else TEXT)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False), model, codes) from None


def unknown_field(name: str, files: Sequence[str], model: type[BaseModel]) -> ServiceError:
    """Return the error for an unknown field, with the known ones; repeat its name only if it is plain."""
    known = tuple(dict.fromkeys((*files, *model.model_fields)))  # depth is a file and a field
    if not is_plain(name):
        return ServiceError("unknown_field", choices=known)
    return ServiceError("unknown_field", sentence=not_known(name, name, known), field=name, choices=known)


def not_known(where: str, name: str, known: Sequence[str]) -> str:
    """Say that a field is not known, and which known one has nearly the same name."""
    alike = get_close_matches(name, known, 1, 0.7)
    if alike:
        return f"This server does not know the field {where}; one with a similar name is {alike[0]}."
    return f"This server does not know the field {where}."


def _refusal(
    errors: Sequence[ErrorDetails], model: type[BaseModel], codes: Mapping[str, str]
) -> ServiceError:
    name = str(errors[0]["loc"][0])
    if name == "question" and errors[0]["type"] == "missing":
        return ServiceError("empty_question", field="question")
    of_field = [error for error in errors if error["loc"][0] == name]
    sentence, limit = what_is_wrong(name, of_field, model.model_fields[name])
    code = codes.get(name, "bad_request")
    return ServiceError(code, sentence=sentence, field=name, choices=_CHOICES.get(name), limit=limit)


def known_object(raw: object, known: Iterable[str], where: str) -> dict[str, Any]:
    """Return the fields that were sent of an object at `where`. Raises ServiceError."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ServiceError("bad_request", reason="object", field=where)
    known = tuple(known)
    for name in raw:
        if name not in known:
            field = f"{where}.{name}" if is_plain(name) else where
            sentence = not_known(field, name, known) if is_plain(name) else None
            raise ServiceError("unknown_field", sentence=sentence, field=field, choices=known)
    return {name: value for name, value in raw.items() if value is not None}


def is_plain(name: str) -> bool:
    """Return whether a client's field name is plain enough to repeat in an error."""
    return name.isascii() and name.replace("_", "").replace("-", "").isalnum() and len(name) <= 64


def check_fields(raw: Mapping[str, Any], settings: Settings, *, strict: bool) -> VqaFields:
    """Check the fields of a question against their bounds and the limits of this process.

    `strict` as for `validated`. Raises ServiceError, DepthError, UnknownMethod.
    """
    fields = validated(VqaFields, raw, strict=strict)
    if not is_unicode(fields.question):
        raise ServiceError("bad_request", reason="value", field="question")
    if not fields.question.strip():
        raise ServiceError("empty_question", field="question")
    if len(fields.question) > settings.max_question_chars:
        raise ServiceError("question_too_long", field="question", limit=settings.max_question_chars)
    if fields.method is not None and fields.method not in (*METHODS, AUTO):
        raise UnknownMethod(fields.method, (*METHODS, AUTO))
    _check_targets(fields)
    fields.check_format()
    return fields


def _check_targets(fields: VqaFields) -> None:
    """Check that targets stand with method=auto, one at most, and nothing else about merging does."""
    sent = [name for name in TARGETS if getattr(fields, name) is not None]
    if sent and fields.method != AUTO:
        raise ServiceError("bad_target", reason="needs_auto", field=sent[0])
    if len(sent) > 1:
        raise ServiceError("bad_target", reason="two", field=sent[1])
    decided = [name for name in MERGE_FIELDS if name in fields.model_fields_set and name not in TARGETS]
    if fields.method == AUTO and decided != ["method"]:
        name = next(name for name in decided if name != "method")
        raise ServiceError("bad_target", reason="decided", field=name)


def check_counts(request: VqaRequest, settings: Settings) -> None:
    """Check the number of files, and that the source of depth is available. Raises ServiceError."""
    if not 1 <= len(request.images) <= settings.max_images:
        raise ServiceError("image_count", field="image", limit=settings.max_images)
    if len(request.depths) not in (0, len(request.images)):
        raise ServiceError("depth_count", field="depth")
    if request.fields.depth == "client" and not request.depths:
        raise ServiceError("depth_count", reason="nothing_sent", field="depth")
    if request.fields.depth == "estimate" and not settings.estimates_depth:
        raise ServiceError("estimate_off", field="depth", choices=("client", "none"))
    check_frames(request)


def check_frames(request: VqaRequest) -> None:
    """Check that the fields of frames with geometry go together. Raises ServiceError."""
    fields = request.fields
    if not fields.has_geometry:
        return
    if fields.views not in (None, "single"):
        raise ServiceError("unsupported_views", sentence=_SINGLE, field="views", choices=("single",))
    for name in ("poses", "timestamps", "intrinsics", "depth_intrinsics"):
        values = getattr(fields, name)
        if isinstance(values, list) and len(values) != len(request.images):
            limit = len(request.images)
            raise ServiceError("bad_merge_frames", reason="count", field=name, limit=limit)


_SINGLE = "Frames that merge are seen in views single, each whole image squeezed into one view."
