"""JSON bodies and the files inside them: read once, strictly, and within a bound on how much there is."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from service.errors import ServiceError
from service.request.coercion import RepeatedKey, read_json

MAX_JSON_MARKS = 20_000
"""Brackets and commas of a body; base64 has none, so only a flood of tiny values comes near."""

PART_CHARS = 2**20  # a multiple of 4


def read_object(body: bytes, max_marks: int = MAX_JSON_MARKS) -> dict[str, Any]:
    """Read a body that is one JSON object. Raises ServiceError."""
    if sum(map(body.count, (b",", b"[", b"{"))) > max_marks:
        raise ServiceError("bad_request", reason="json")
    try:
        raw = read_json(body.decode("utf-8"))
    except RepeatedKey:
        raise ServiceError("bad_request", reason="repeated_key") from None
    except ValueError:
        raise ServiceError("bad_request", reason="json") from None
    if not isinstance(raw, dict):
        raise ServiceError("bad_request", reason="json")
    return raw


def decode_base64(text: object) -> bytes:
    """Decode base64 without a line break or another stray character. Raises ValueError.

    In parts, between which other threads have their turn: the event loop is one of them.
    """
    if not isinstance(text, str) or 0 <= text.find("=") < len(text) - 2:
        raise ValueError
    parts = (text[at : at + PART_CHARS] for at in range(0, len(text), PART_CHARS))
    try:
        return b"".join(base64.b64decode(part, validate=True) for part in parts)
    except binascii.Error:
        raise ValueError from None


def decode_data_uri(uri: str) -> bytes | None:
    """Return the bytes of data:[<media type>];base64,<data>, or None for another scheme. Raises ValueError.

    The media type is ignored; the format is detected from the bytes.
    """
    head, comma, data = uri.partition(",")
    if head[:5].lower() != "data:":
        return None
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError
    return decode_base64(data)
