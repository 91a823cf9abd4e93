"""Describe an invalid value in a sentence with the bounds of its field, read from the pydantic model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from depth.conventions import CONVENTIONS
from depth.errors import MAX_INVALID
from depth.presets import KINDS, PRESET_NAMES
from service.request.coercion import MAX_ENTRIES
from service.request.schemas import VIEWS
from tosa import KERNELS, METHODS
from tosa.frames import MERGE_FRAMES
from tosa.spec import ORDERS

_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_UNITS = {"string": "characters", "list": "values", "dict": "entries"}
_TYPES = {float: "a number", int: "an integer", bool: "true or false", str: "a text"}
_KINDS = {
    "method": f"one of {', '.join(METHODS)} or auto",
    "r": "a count, or a list with a count for each layer",
    "r_hw": "two counts, (rows, columns)",
    "layers": "a list of layer numbers, from 0",
    "schedule": "constant, decreasing, increasing or a number in [-1, 1]",
    "alpha": "increase, decrease, uniform, auto, a number in [0, 1] or a list of them",
    "spatial_kernel": " or ".join(KERNELS),
    "order": " or ".join(ORDERS),
    "options": f"an object of at most {MAX_ENTRIES} names with a number, a text or null each; in a form it "
    "is written as JSON",
    "depth": "a file for each image, or the word client, estimate or none",
    "views": f"one of {', '.join(VIEWS)}",
    "merge_frames": f"one of {', '.join(MERGE_FRAMES)}",
    "convention": f"one of {', '.join(CONVENTIONS)}",
    "pose": "a matrix, or an object with position and quaternion; in a form it is written as JSON",
    "poses": "a list with a pose, or null, for each image; in a form it is written as JSON",
    "intrinsics": "an object with fx, fy, cx and cy, or hfov; in a form it is written as JSON",
    "depth_intrinsics": "an object with fx, fy, cx and cy, or hfov; in a form it is written as JSON",
    "timestamps": "a list with a number of seconds, or null, for each image",
    "depth_preset": f"one of {', '.join(PRESET_NAMES)}",
    "depth_kind": " or ".join(KINDS),
    "depth_invalid": f"a list of at most {MAX_INVALID} numbers",
    "depth_key": "the name of an array or a channel",
    "depth_shape": "width x height in pixels, such as 640x480",
}
"""What a field must be, where its annotation alone is not clear to people."""


def what_is_wrong(name: str, errors: Sequence[ErrorDetails], field: FieldInfo) -> tuple[str, float | None]:
    """Return a sentence about the first bound that was passed, else about the type; and that bound."""
    passed = next(((error, bound) for error in errors if (bound := _bound_of(error))), None)
    if passed is None or name in _CHOICE_FIELDS:
        return f"{name} must be {_kind(name, field)}.", None
    error, (key, limit) = passed
    if key in ("min_length", "max_length"):
        return f"{name} must be {_kind(name, field)}, with {_length(error, key, limit)}.", limit
    if (len(error["loc"]) > 1 and not isinstance(error["loc"][-1], str)) or name == "options":
        return f"Each number of {name} must be {_WORDS[key]} {_number(limit)}.", limit
    return f"{name} must be {_range(field) or f'{_WORDS[key]} {_number(limit)}'}.", limit


_CHOICE_FIELDS = (
    "method",
    "depth",
    "views",
    "merge_frames",
    "convention",
    "depth_preset",
    "depth_kind",
    "order",
    "spatial_kernel",
)


def _bound_of(error: ErrorDetails) -> tuple[str, float] | None:
    context = error.get("ctx", {})
    for key in (*_WORDS, "min_length", "max_length"):
        if isinstance(context.get(key), int | float):
            return key, context[key]
    return None


def _length(error: ErrorDetails, key: str, limit: float) -> str:
    unit = next((unit for kind, unit in _UNITS.items() if error["type"].startswith(kind)), "values")
    return f"at {'least' if key == 'min_length' else 'most'} {_number(limit)} {unit}"


def _kind(name: str, field: FieldInfo) -> str:
    if name in _KINDS:
        return _KINDS[name]
    annotations = (field.annotation, *getattr(field.annotation, "__args__", ()))
    annotations += tuple(getattr(one, "__origin__", one) for one in annotations)  # what is Annotated, bare
    words = [word for one in annotations if get_origin(one) is Literal for word in get_args(one)]
    if words:
        return f"one of {', '.join(words)}"
    kind = next(words for annotation, words in _TYPES.items() if annotation in annotations)
    return f"{kind} {_range(field)}".rstrip()


def _range(field: FieldInfo) -> str:
    """Write the bounds of a field as words: "above 0 and at most 1"."""
    return " and ".join(
        f"{word} {_number(getattr(one, key))}"
        for one in field.metadata
        for key, word in _WORDS.items()
        if hasattr(one, key)
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
