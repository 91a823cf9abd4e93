"""Read a PNG's header and prove that all its pixels are there, before any decoder allocates them.

Pillow fills missing rows with zeros without a word, so a cut file would become a wrong answer. It does not
decode.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 16_384
_INFLATE_STEP = 1 << 18
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples per pixel
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_KEPT_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")


class PngError(ValueError):
    """Say that a PNG is malformed, cut short or does not hold what its header promises."""


class AnimatedPng(PngError):
    """Say that a PNG announces an animation of several frames."""


@dataclass(frozen=True)
class PngHeader:
    """Hold the IHDR fields; bits are per sample, colour_type as in the PNG specification."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool

    @property
    def inflated_bytes(self) -> int:
        """Return how many bytes the pixel stream must inflate to, filter bytes included."""
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        return sum(self._pass_bytes(*one) for one in passes)

    def _pass_bytes(self, x0: int, y0: int, dx: int, dy: int) -> int:
        columns, rows = -(-(self.width - x0) // dx), -(-(self.height - y0) // dy)
        if columns <= 0 or rows <= 0:
            return 0
        return rows * (1 + (columns * self.bits * _CHANNELS[self.colour_type] + 7) // 8)


def read_png_header(data: bytes) -> PngHeader:
    """Read IHDR from the first 33 bytes. Raises PngError."""
    if len(data) < 33 or data[:8] != SIGNATURE or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise PngError("no PNG header")
    width, height, bits, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if not width or not height or colour_type not in _CHANNELS or interlace > 1:
        raise PngError("impossible PNG header")
    return PngHeader(width, height, bits, colour_type, bool(interlace))


def check_png_complete(data: bytes, header: PngHeader) -> None:
    """Check chunk sums and that the pixel stream inflates to exactly what the header promises.

    Inflates in small steps and keeps nothing; a caller bounds the work by bounding the header's pixels first.
    Raises PngError, and AnimatedPng for more than one frame.
    """
    inflater, inflated, headers = zlib.decompressobj(), 0, 0
    try:
        for kind, body in _chunks(data):
            if kind == b"acTL" and body[:4] != b"\x00\x00\x00\x01":
                raise AnimatedPng
            headers += kind == b"IHDR"
            while kind == b"IDAT" and body and not inflater.eof:
                inflated += len(inflater.decompress(body, _INFLATE_STEP))
                body = inflater.unconsumed_tail
                if inflated > header.inflated_bytes:
                    raise PngError("more pixels than promised")
        inflated += len(inflater.flush())
    except zlib.error:
        raise PngError("damaged pixel stream") from None
    if not inflater.eof or inflated != header.inflated_bytes or headers != 1:
        raise PngError("fewer pixels than promised, or promised twice")


def only_pixels(data: bytes) -> bytes:
    """Return the same PNG with what its pixels and their orientation need: no texts, no colour profiles.

    Takes a file that `check_png_complete` let through.
    """
    kept = [
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
        for kind, body in _chunks(data)
        if kind in _KEPT_CHUNKS
    ]
    return SIGNATURE + b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            raise PngError("no end chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise PngError("cut chunk")
        body = data[at + 8 : end]
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, end)[0]:
            raise PngError("wrong chunk sum")
        yield kind, body
        if kind == b"IEND":
            return
        at = end + 4
    raise PngError("too many chunks")
