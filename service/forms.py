"""From an HTTP body to a VqaRequest: multipart/form-data, or JSON with base64 files. Decodes no image."""

import asyncio
import base64
import binascii
import json
from typing import Any, NoReturn

from fastapi import Request
from python_multipart.multipart import parse_options_header

from service.errors import ApiError
from service.multipart import parse_multipart
from service.schemas import FORM_FILES, VqaFields, VqaRequest, check_counts, check_fields, unknown_field
from service.settings import Settings

JSON, MULTIPART = b"application/json", b"multipart/form-data"
MAX_JSON_MARKS = 20_000
"""Brackets and commas of a JSON body; base64 has none, so only a flood of tiny values comes near."""


def refuse_query(request: Request) -> None:
    """Refuse fields in the address: they would be ignored without a word. Raises ApiError."""
    for name in request.query_params:
        raise unknown_field(name, FORM_FILES)


def content_type(request: Request) -> tuple[bytes, bytes]:
    """Return the media type and the multipart boundary, empty for JSON. Raises ApiError for other types."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == JSON:
        return kind, b""
    if kind == MULTIPART:
        if b"boundary" not in options:
            raise ApiError("bad_request", reason="multipart")
        return kind, options[b"boundary"]
    raise ApiError("unsupported_media_type")


async def read_body(request: Request, settings: Settings) -> bytes:
    """Read the body, counting while it arrives. Raises ApiError if it is too large or too slow."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > settings.max_body_bytes:
        raise _too_large(settings)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_body_bytes:
                    raise _too_large(settings)
    except TimeoutError:
        raise ApiError("request_timeout") from None
    return bytes(body)


def _too_large(settings: Settings) -> ApiError:
    return ApiError("body_too_large", limit=settings.max_body_bytes)


def parse_body(kind: bytes, boundary: bytes, body: bytes, settings: Settings) -> VqaRequest:
    """Parse a body of a type that `content_type` let through. Raises ApiError."""
    asked = _from_json(body, settings) if kind == JSON else _from_multipart(body, boundary, settings)
    check_counts(asked, settings)
    return asked


def _from_multipart(body: bytes, boundary: bytes, settings: Settings) -> VqaRequest:
    files: dict[str, list[bytes]] = {name: [] for name in FORM_FILES}
    texts: dict[str, str] = {}
    for part in parse_multipart(body, boundary):
        if part.name in files:
            files[part.name].append(_file(part.name, part.is_file, part.data))
        elif part.name in texts or part.is_file:
            raise _not_text(part.name)
        else:
            texts[part.name] = _text(part.name, part.data)
    fields = check_fields(texts, settings, strict=False)
    return VqaRequest(fields, tuple(files["image"]), tuple(files["depth"]))


def _file(name: str, is_file: bool, data: bytearray) -> bytes:
    if not is_file:
        raise ApiError("bad_request", reason="not_a_file", field=name)
    return bytes(data)


def _text(name: str, data: bytearray) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_text(name) from None


def _not_text(name: str) -> ApiError:
    is_known = name in VqaFields.model_fields
    return (
        ApiError("bad_request", reason="not_text", field=name)
        if is_known
        else unknown_field(name, FORM_FILES)
    )


def _from_json(body: bytes, settings: Settings) -> VqaRequest:
    raw = _json_object(body)
    images, depths = _base64_files(raw, "images"), _base64_files(raw, "depths")
    # null means "not sent", but a field nobody knows stays unknown
    given = {
        name: value for name, value in raw.items() if value is not None or name not in VqaFields.model_fields
    }
    return VqaRequest(check_fields(given, settings, strict=True), images, depths)


def _json_object(body: bytes) -> dict[str, Any]:
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_JSON_MARKS:
        raise ApiError("bad_request", reason="json")
    try:
        raw = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ApiError("bad_request", reason="json") from None
    if not isinstance(raw, dict):
        raise ApiError("bad_request", reason="json")
    return raw


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are not JSON


def _base64_files(raw: dict[str, Any], name: str) -> tuple[bytes, ...]:
    files = raw.pop(name, None)
    if files is None:
        return ()
    try:
        if isinstance(files, list):
            return tuple(base64.b64decode(file, validate=True) for file in files)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise ApiError("bad_request", reason="base64", field=name)
