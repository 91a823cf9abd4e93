"""Read a PNG's header, and prove that all its pixels are there before any decoder allocates them.

Pillow fills missing rows with zeros silently, so a truncated file would give a wrong answer. Pixels are not
decoded here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

from depth.formats.errors import AnimatedImage, ImageFileError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 16_384
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples per pixel
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_KEPT_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_STORED_BYTES = 0xFFFF  # most that a deflate block without compression holds


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
    """Read IHDR from the first 33 bytes. Raises ImageFileError."""
    if len(data) < 33 or data[:8] != SIGNATURE or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise ImageFileError("no PNG header")
    width, height, bits, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if not width or not height or colour_type not in _CHANNELS or interlace > 1:
        raise ImageFileError("impossible PNG header")
    return PngHeader(width, height, bits, colour_type, bool(interlace))


def complete_png(data: bytes, header: PngHeader, keep_texts: bool = False) -> bytes:
    """Return the same PNG with its pixel stream inflated, proven to hold exactly what the header promises.

    The stream is stored without compression, so that no decoder inflates it again. Only chunks that
    pixels and their orientation need are kept: no colour profiles, and texts only if `keep_texts`. Takes
    twice the memory of the pixels; a caller bounds it by bounding the header's pixels first. Raises
    ImageFileError, and AnimatedImage for more than one frame.
    """
    kept_kinds = _KEPT_CHUNKS + (_TEXT_CHUNKS if keep_texts else ())
    kept: list[tuple[bytes, bytes]] = []
    stream: list[bytes] = []
    for kind, body in _chunks(data):
        if kind == b"acTL" and body[:4] != b"\x00\x00\x00\x01":
            raise AnimatedImage
        if kind == b"IHDR" and kept:
            raise ImageFileError("pixels promised twice")
        if kind == b"IDAT":
            stream.append(body)
        elif kind in kept_kinds:
            kept.append((kind, body))
    pixels = inflated_pixels(b"".join(stream), header)
    end = kept.pop()
    return SIGNATURE + b"".join(_chunk(*one) for one in (*kept, (b"IDAT", _stored(pixels)), end))


def inflated_pixels(stream: bytes, header: PngHeader) -> bytes:
    """Inflate a pixel stream to exactly the bytes that the header promises. Raises ImageFileError."""
    inflater = isal_zlib.decompressobj()
    try:
        pixels = inflater.decompress(stream, header.inflated_bytes + 1)
    except Exception:  # IsalError, which its type stubs do not declare as a class
        raise ImageFileError("damaged pixel stream") from None
    if not inflater.eof or len(pixels) != header.inflated_bytes:  # at eof its checksum was right, too
        raise ImageFileError("fewer or more pixels than promised")
    return pixels


def _stored(pixels: bytes) -> bytes:
    """Write a zlib stream of `pixels` without compression."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    view = memoryview(pixels)
    for start in range(0, len(pixels), _STORED_BYTES):
        block = view[start : start + _STORED_BYTES]
        is_last = start + _STORED_BYTES >= len(pixels)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join((*parts, struct.pack(">I", isal_zlib.adler32(pixels))))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", _sum(kind, body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            raise ImageFileError("no end chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ImageFileError("truncated chunk")
        body = data[at + 8 : end]
        is_critical = not kind[0] & 0x20
        if is_critical and _sum(kind, body) != struct.unpack_from(">I", data, end)[0]:
            raise ImageFileError("wrong chunk sum")
        yield kind, body
        if kind == b"IEND":
            return
        at = end + 4
    raise ImageFileError("too many chunks")


def _sum(kind: bytes, body: bytes) -> int:
    return isal_zlib.crc32(body, isal_zlib.crc32(kind))
