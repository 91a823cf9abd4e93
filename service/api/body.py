"""From an HTTP body to a request: multipart/form-data, or JSON with base64 files. Decodes no image."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header

from service.api.arrivals import Arrival
from service.api.json_body import decode_file, read_object
from service.api.multipart import Part, parse_multipart
from service.errors import ServiceError
from service.request.schemas import InspectFields, InspectRequest, Output, VqaFields, VqaRequest
from service.request.validation import FORM_FILES, check_counts, check_fields, unknown_field, validated
from service.settings import Settings

JSON, MULTIPART = b"application/json", b"multipart/form-data"


def refuse_query(request: Request, model: type[BaseModel]) -> None:
    """Refuse query parameters, which would be ignored silently. Raises ServiceError."""
    for name in request.query_params:
        raise unknown_field(name, FORM_FILES, model)


def content_type(request: Request, *, json_only: bool = False) -> tuple[bytes, bytes]:
    """Return the media type and the multipart boundary, empty for JSON. Raises ServiceError for others."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == JSON:
        return kind, b""
    if json_only:
        raise ServiceError("unsupported_media_type", reason="json")
    if kind == MULTIPART:
        if b"boundary" not in options:
            raise ServiceError("bad_request", reason="multipart")
        return kind, options[b"boundary"]
    raise ServiceError("unsupported_media_type")


async def receive_body(request: Request, settings: Settings, arrival: Arrival) -> bytes:
    """Read the body, counting while it arrives. Raises ServiceError if it is too large or too slow."""
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
                arrival.add(len(chunk))
    except TimeoutError:
        raise ServiceError("request_timeout") from None
    return bytes(body)


def _too_large(settings: Settings) -> ServiceError:
    return ServiceError("body_too_large", limit=settings.max_body_bytes)


@dataclass(frozen=True)
class Form:
    """Hold the files and unchecked fields of a body; `is_typed`: fields have JSON types, not text."""

    images: tuple[bytes, ...]
    depths: tuple[bytes, ...]
    fields: Mapping[str, Any]
    is_typed: bool

    def request(self, fields: VqaFields) -> VqaRequest:
        """Return a question with these files, and how its sender named them."""
        plural = "s" if self.is_typed else ""
        return VqaRequest(
            fields,
            self.images,
            self.depths,
            output=Output(top_logprobs=0 if fields.confidence else None),
            image_names=_names("image", plural, len(self.images)),
            depth_names=_names("depth", plural, len(self.depths)),
        )


def parse_question(kind: bytes, boundary: bytes, body: bytes, settings: Settings) -> VqaRequest:
    """Parse a body of a type that `content_type` let through. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, VqaFields)
    request = form.request(check_fields(form.fields, settings, strict=form.is_typed))
    check_counts(request, settings)
    return request


def parse_inspection(kind: bytes, boundary: bytes, body: bytes) -> InspectRequest:
    """Parse a body that holds one depth file and at most one image. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, InspectFields)
    fields = validated(InspectFields, form.fields, strict=form.is_typed)
    fields.check_format()
    if len(form.depths) != 1:
        raise ServiceError("depth_count", reason="inspect_one", field="depth")
    if len(form.images) > 1:
        raise ServiceError("image_count", reason="inspect_one", field="image")
    return InspectRequest(fields, form.depths[0], form.images[0] if form.images else None)


def read_form(kind: bytes, boundary: bytes, body: bytes, model: type[BaseModel]) -> Form:
    """Read the files and fields of a body; `model` names the fields. Raises ServiceError."""
    return _from_json(body, model) if kind == JSON else _from_multipart(body, boundary, model)


def _from_multipart(body: bytes, boundary: bytes, model: type[BaseModel]) -> Form:
    """Read a form; empty parts mean "not sent", but an unknown field stays an error."""
    files: dict[str, list[Part]] = {name: [] for name in FORM_FILES}
    texts: dict[str, str] = {}
    for part in parse_multipart(body, boundary):
        if part.is_empty and (part.name in FORM_FILES or part.name in model.model_fields):
            continue
        if part.name in FORM_FILES and _is_file(part, model):
            files[part.name].append(part)
        elif part.name in texts:
            raise _not_text(part.name, model)
        else:
            texts[part.name] = _text(part, model)
    images, depths = (tuple(map(_file, files[name], _names(name, "", len(files[name])))) for name in files)
    return Form(images, depths, texts, is_typed=False)


def _is_file(part: Part, model: type[BaseModel]) -> bool:
    """Return whether a part is a file; only a short text without a filename is the word of a field."""
    if part.filename is not None or part.name not in model.model_fields or _is_address(part.data):
        return True
    try:
        return not part.data.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return True


def _file(part: Part, name: str) -> bytes:
    """Return the bytes of a file; a data URI, as scripts of pages send it, is decoded."""
    if _is_address(part.data):
        return decode_file(part.data.decode("latin-1"), name)
    return bytes(part.data)


def _is_address(data: bytearray) -> bool:
    return data[:8].lower().startswith((b"data:", b"http://", b"https://"))


def _names(kind: str, plural: str, number: int) -> tuple[str, ...]:
    """Name the files of a request for errors: by their place where there are several."""
    return (kind,) if number == 1 else tuple(f"{kind}{plural}[{at}]" for at in range(number))


def _text(part: Part, model: type[BaseModel]) -> str:
    """Return the text of a field, which some clients send as a file."""
    try:
        return part.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _not_text(part.name, model) from None


def _not_text(name: str, model: type[BaseModel]) -> ServiceError:
    if name not in model.model_fields:
        return unknown_field(name, FORM_FILES, model)
    return ServiceError("bad_request", reason="not_text", field=name)


def _from_json(body: bytes, model: type[BaseModel]) -> Form:
    raw = read_object(body)
    images, depths = _base64_files(raw, "images"), _base64_files(raw, "depths")
    # null means "not sent", but an unknown field stays an error
    given = {
        name: value for name, value in raw.items() if value is not None or name not in model.model_fields
    }
    return Form(images, depths, given, is_typed=True)


def _base64_files(raw: dict[str, Any], name: str) -> tuple[bytes, ...]:
    files = raw.pop(name, None)
    if files is None:
        return ()
    if not isinstance(files, list):
        raise ServiceError("bad_request", reason="base64_list", field=name)
    names = [name] if len(files) == 1 else [f"{name}[{at}]" for at in range(len(files))]
    return tuple(map(decode_file, files, names))
