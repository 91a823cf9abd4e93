"""JSON bodies and the files inside them: read once, strictly, and within a bound on how much there is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from service.errors import ServiceError
from service.request.coercion import RepeatedKey, read_json

MAX_JSON_MARKS = 20_000
"""Brackets and commas of a body; base64 has none, so only a flood of tiny values comes near."""

PART_CHARS = 2**20  # a multiple of 4
_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the url-safe alphabet of base64 to the usual one."""
_SPACES = b" \t\r\n"
_ADDRESSES = ("http:", "https:", "file:", "ftp:", "s3:", "gs:", "blob:", "//")


def read_object(body: bytes, max_marks: int = MAX_JSON_MARKS) -> dict[str, Any]:
    """Read a body that is one JSON object in UTF-8, a byte order mark allowed. Raises ServiceError."""
    if sum(map(body.count, (b",", b"[", b"{"))) > max_marks:
        raise ServiceError("bad_request", reason="json")
    try:
        raw = read_json(body.decode("utf-8-sig"))
    except RepeatedKey:
        raise ServiceError("bad_request", reason="repeated_key") from None
    except ValueError:
        raise ServiceError("bad_request", reason=_why_not_json(body)) from None
    if not isinstance(raw, dict):
        raise ServiceError("bad_request", reason="json")
    return raw


def decode_base64(text: object) -> bytes:
    """Decode base64, also with line breaks, in the url-safe alphabet or without padding. Raises ValueError.

    In parts, between which other threads have their turn: the event loop is one of them.
    """
    if not isinstance(text, str):
        raise ValueError
    try:
        return _strictly(text)
    except ValueError:
        return _strictly(_in_standard_form(text))


def decode_data_uri(uri: str) -> bytes | None:
    """Return the bytes of data:[<media type>];base64,<data>, or None for another scheme. Raises ValueError.

    The media type is ignored; the format is detected from the bytes.
    """
    head, comma, data = uri.partition(",")
    if head[:5].lower() != "data:":
        return None
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError
    return decode_base64(unquote(data) if "%" in data else data)


def decode_file(text: object, field: str) -> bytes:
    """Decode a file inside a body, base64 or a data URI. Raises ServiceError, also for other addresses."""
    try:
        if not isinstance(text, str):
            raise ValueError
        data = decode_data_uri(text)
        if data is None and text[:16].lstrip().lower().startswith(_ADDRESSES):
            raise ServiceError("url_refused", field=field)
        return decode_base64(text) if data is None else data
    except ValueError:
        raise ServiceError("bad_request", reason="base64", field=field) from None


def _strictly(text: str) -> bytes:
    if 0 <= text.find("=") < len(text) - 2:
        raise ValueError
    return b"".join(base64.b64decode(part, validate=True) for part in _parts(text))


def _in_standard_form(text: str) -> str:
    """Write base64 in one line, in the usual alphabet and padded. Raises ValueError."""
    plain = b"".join(part.encode("ascii").translate(_STANDARD, _SPACES) for part in _parts(text))
    data = plain.rstrip(b"=")
    missing = -len(data) % 4
    if len(plain) - len(data) not in (0, missing):
        raise ValueError
    return (data + b"=" * missing).decode("ascii")


def _parts(text: str) -> Iterator[str]:
    return (text[at : at + PART_CHARS] for at in range(0, len(text), PART_CHARS))


def _why_not_json(body: bytes) -> str:
    """Name what a body is instead of JSON in UTF-8, if that can be told from its first bytes."""
    if body.startswith(b"\x1f\x8b"):
        return "unnamed_gzip"
    is_wide = body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:4]
    return "not_utf8" if is_wide else "json"
