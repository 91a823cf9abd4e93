"""The fields of a multipart form for the generated documentation: what Swagger UI can show as inputs.

A form has text and files, no null and no unions, so a field of several types is a text here. Optional fields
carry no example, since pages fill those in and send them: the examples are part of the descriptions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from depth.presets import KINDS
from tosa import KERNELS, METHODS
from tosa.spec import ORDERS

Schema = dict[str, Any]
_WORDS = {"method": tuple(METHODS), "depth_kind": KINDS, "order": ORDERS, "spatial_kernel": KERNELS}
"""Fields with a closed set of words, which a page shows as a menu."""


def form_schema(schema: Schema, files: Mapping[str, Schema], required: str) -> Schema:
    """Return the schema of a form from that of its fields; `required` names the file that must be there."""
    needed = [required, *schema.get("required", [])]
    fields = {name: _input(name, field, name in needed) for name, field in schema["properties"].items()}
    both = {name: _file_or_word(file, fields.get(name)) for name, file in files.items()}
    first = {name: fields[name] for name in needed if name in fields}  # what must be there comes first
    return {**schema, "properties": {**both, **first, **fields, **both}, "required": needed}


def _input(name: str, field: Schema, is_needed: bool) -> Schema:
    """Describe a field as one input of a page."""
    kinds = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    described = field["description"]
    if name in _WORDS:
        shown: Schema = {"type": "string", "enum": list(_WORDS[name])}
    elif len(kinds) > 1 or _is_list_of_plain(kinds[0]):
        shown = {"type": "string"}
    else:
        shown = {
            key: value for key, value in kinds[0].items() if key not in ("description", "examples", "title")
        }
    if field.get("default") is not None:
        shown["default"] = field["default"]
    if is_needed:
        return {**shown, "description": described, "examples": field["examples"]}
    if shown["type"] == "object":
        return {**shown, "description": f"{described} {_for_example(field)}", "examples": [{}]}
    is_closed = name in _WORDS or shown["type"] == "boolean"
    return {**shown, "description": described if is_closed else f"{described} {_for_example(field)}"}


def _is_list_of_plain(kind: Schema) -> bool:
    return kind["type"] == "array" and "properties" not in kind["items"]


def _for_example(field: Schema) -> str:
    return f"For example {' or '.join(map(_text, field['examples']))}."


def _text(value: Any) -> str:
    """Write a value as a form has it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _file_or_word(file: Schema, field: Schema | None) -> Schema:
    """Describe a part that is a file, and may be a word of the field with the same name."""
    if field is None:
        return file
    return {**file, "description": f"{file['description']} Or, sent as text, a word. {field['description']}"}
