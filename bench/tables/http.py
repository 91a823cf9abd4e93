"""Tables of the HTTP interface, read from the OpenAPI document of the application; no model is loaded."""

from __future__ import annotations

from functools import cache
from typing import Any

from bench.tables.markdown import prose, table
from service.app import create_app
from service.errors.table import CODES
from service.settings import Settings

Schema = dict[str, Any]
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
_PLURALS = {"integer": "integers", "number": "numbers", "text": "texts", "object": "objects"}
_SMALL, _LARGE = 1e-5, 1e5
"""Bounds beyond these only keep nonsense out, and are in no table."""
_BOUNDS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}


@cache
def document() -> Schema:
    """Return the OpenAPI document of the service."""
    return create_app(Settings()).openapi()


def addresses() -> str:
    """Every address, and the first sentence about it."""
    rows = [
        [f"`{verb.upper()} {path}`", prose(operation["description"])]
        for path, operations in document()["paths"].items()
        for verb, operation in operations.items()
    ]
    return table(["address", "purpose"], rows, right=False)


def request_fields(path: str) -> str:
    """The fields of the body of an address, of the multipart form where there is one."""
    content = document()["paths"][path]["post"]["requestBody"]["content"]
    schema = content.get("multipart/form-data", content["application/json"])["schema"]
    typed = content["application/json"]["schema"]["properties"]  # a form has texts where JSON has types
    required = schema.get("required", [])
    rows = []
    for name, field in schema["properties"].items():
        meant = typed.get(name, field)
        is_file = kind(field) == "file"
        said = field if is_file else meant  # without the examples that are for pages
        shown = f"file or {kind(meant)}" if is_file and meant is not field else kind(meant)
        rows.append([f"`{name}`", shown, _default(field, name in required), prose(said["description"])])
    return table(["field", "type", "default", "meaning"], rows, right=False)


def response_fields(path: str) -> str:
    """The fields of the answer of an address, nested ones behind a dot."""
    content = document()["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    return table(["field", "type", "meaning"], _nested(content["schema"], ""), right=False)


def own_response_fields(path: str) -> str:
    """The fields of the answer of an address, without those inside its objects."""
    content = document()["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    rows = [row for row in _nested(content["schema"], "") if "." not in row[0]]
    return table(["field", "type", "meaning"], rows, right=False)


def error_fields(name: str) -> str:
    """The fields of an error body, by the name of its schema."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return table(["field", "type", "meaning"], _nested(schema, ""), right=False)


def error_codes() -> str:
    """Every error code, its status and its usual sentence."""
    rows = [[f"`{code}`", str(kind.status), prose(kind.sentence)] for code, kind in CODES.items()]
    return table(["code", "status", "message"], rows, right=False)


def kind(field: Schema) -> str:
    """Name the type of a field, with its bounds."""
    field = _resolved(field)
    options = [one for one in field.get("anyOf", []) if one.get("type") != "null"]
    if options:
        return " or ".join(dict.fromkeys(kind(one) for one in options))
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return _list_kind(field)
    if field.get("format") == "binary":
        return "file"
    named = _TYPES.get(field.get("type", ""), "object")
    return ", ".join([named, *_bounds(field)])


def _list_kind(field: Schema) -> str:
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])} numbers"
    items = kind(field["items"]).partition(",")[0]  # bounds of entries are in no table
    return "file" if items == "file" else f"list of {_PLURALS.get(items, items)}"


def _bounds(field: Schema) -> list[str]:
    known = [(phrase, field[name]) for name, phrase in _BOUNDS.items() if name in field]
    return [phrase.format(value) for phrase, value in known if value == 0 or _SMALL < abs(value) < _LARGE]


def _nested(schema: Schema, before: str) -> list[list[str]]:
    """Return a row for each field, and after it the rows of the fields inside it."""
    rows: list[list[str]] = []
    for name, field in _resolved(schema)["properties"].items():
        inside = _object_in(field)
        path = f"{before}{name}"
        rows.append([f"`{path}`", kind(field), prose(field["description"])])
        if inside is not None and "spec" not in path:
            rows += _nested(inside, f"{path}{'[]' if _resolved(field).get('type') == 'array' else ''}.")
    return rows


def _object_in(field: Schema) -> Schema | None:
    """Find the one object that a field holds, alone or in a list."""
    field = _resolved(field)
    found = [field, field.get("items", {}), *field.get("anyOf", []), *field.get("items", {}).get("anyOf", [])]
    return next((_resolved(one) for one in found if "properties" in _resolved(one)), None)


def _resolved(schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    return document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]] | {
        name: value for name, value in schema.items() if name != "$ref"
    }


def _default(field: Schema, is_required: bool) -> str:
    if is_required:
        return "required"
    default = field.get("default")
    return "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
