"""Read a WebP's canvas size, before libwebp is asked: it allocates the whole canvas when a file is opened."""

import struct
from dataclasses import dataclass

from depth.formats.errors import AnimatedImage, ImageFileError

_ANIMATION = 0x02


@dataclass(frozen=True)
class WebpHeader:
    """Hold the size of the canvas in pixels."""

    width: int
    height: int


def is_webp(data: bytes) -> bool:
    """Whether a file begins like a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp_header(data: bytes) -> WebpHeader:
    """Read the first chunk. Raises ImageFileError, and AnimatedImage for more than one frame."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        raise ImageFileError("no WebP header")
    if kind == b"VP8X":
        if head[0] & _ANIMATION:
            raise AnimatedImage
        return WebpHeader(1 + _uint24(head[4:7]), 1 + _uint24(head[7:10]))
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[1:5])
        return WebpHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return WebpHeader(width & 0x3FFF, height & 0x3FFF)
    raise ImageFileError("no WebP header")


def _uint24(data: bytes) -> int:
    return int.from_bytes(data, "little")
