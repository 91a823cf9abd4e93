"""The Content-Encoding of request bodies: none, or gzip, which is inflated within the limit of a body."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from service.errors import ServiceError

ENCODINGS = ("gzip", "identity")
_GZIP_NAMES = ("gzip", "x-gzip")
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


def is_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether the headers announce a gzip body. Raises ServiceError for any other encoding."""
    written = (value for name, value in headers.items() if name.lower() == "content-encoding")
    names = [name.strip().lower() for value in written for name in value.split(",")]
    coded = [name for name in names if name not in ("", "identity")]
    if not coded:
        return False
    if len(coded) == 1 and coded[0] in _GZIP_NAMES:
        return True
    raise ServiceError(
        "unsupported_media_type", reason="encoding", field="Content-Encoding", choices=ENCODINGS
    )


def inflate(body: bytes, limit: int) -> bytes:
    """Inflate gzip to at most `limit` bytes; nothing beyond that is allocated.

    Raises ServiceError if the body is larger, cut, damaged, or more than one gzip member.
    """
    inflater = zlib.decompressobj(_GZIP_FORMAT)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ServiceError("bad_request", reason="gzip") from None
    if len(inflated) > limit:
        raise ServiceError("body_too_large", reason="inflated", limit=limit)
    if not inflater.eof or inflater.unused_data:
        raise ServiceError("bad_request", reason="gzip")
    return inflated
