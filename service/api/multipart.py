"""Split a multipart/form-data body that is already in memory; no temporary files, no event loop."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 256
_EXTENDED_FILENAME = re.compile(rb";\s*filename\*(?:\d+\*?)?\s*=", re.IGNORECASE)
"""A filename as RFC 5987 writes it, which the parser leaves out: RFC 7578 forbids it, and clients send it."""


@dataclass
class Part:
    """Hold one part: its name, its filename (None: sent without one), and its bytes."""

    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was sent, as browsers send an input that nobody filled in."""
        return not self.data and not self.filename


def parse_multipart(body: bytes, boundary: bytes) -> list[Part]:
    """Return the parts of `body` in order. Raises ServiceError if it is malformed, cut or has too many."""
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
    except FormParserError:
        raise _malformed() from None
    if not collector.is_complete:
        raise _malformed()
    return collector.parts


class _Collector:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_complete = False
        self._header_name = b""
        self._header_value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._name,
            "on_header_value": self._value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise _malformed()
        self.parts.append(Part())

    def _header_begin(self) -> None:
        self._header_name = self._header_value = b""

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() != b"content-disposition":
            return
        _, options = parse_options_header(self._header_value)
        self.parts[-1].name = _text(options.get(b"name", b""))
        if b"filename" in options:
            self.parts[-1].filename = _text(options[b"filename"])
        elif _EXTENDED_FILENAME.search(self._header_value):
            self.parts[-1].filename = "filename*"

    def _headers_finished(self) -> None:
        if not self.parts[-1].name:
            raise _malformed()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _end(self) -> None:
        self.is_complete = True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _malformed() -> ServiceError:
    return ServiceError("bad_request", reason="multipart")
