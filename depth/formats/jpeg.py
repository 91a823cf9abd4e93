"""Read a JPEG's markers, and decode it once its coded data is proven to cover all its pixels.

libjpeg fills in missing data with grey and counts a warning, which Pillow ignores.
"""

import io
import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from depth.formats.errors import ImageFileError

SIGNATURE = b"\xff\xd8\xff"
MAX_SCANS = 64
MAX_INTERVALS = 1 << 18
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, with Huffman codes
_TABLES = (0xC4, 0xCC)
_PROGRESSIVE = 0xC2
_SOS, _EOI, _APP2 = 0xDA, 0xD9, 0xE2
_COEFFICIENTS = 64
_COLOURS = {"L": "GRAY", "RGB": "RGB"}  # Pillow's modes, by simplejpeg's names
_UNSEEN = 16
# Bytes of 128 to 254: ones come early in them, where a decoder that ran out goes on with zeros.
_STUFFING = bytes(128 + (53 * index + index * index // 3) % 127 for index in range(64))


@dataclass(frozen=True)
class JpegLayout:
    """The information in the markers.

    `interval_ends` are the offsets at which coded data ends, each with the number of the restart marker that
    would come next if more were to follow there, or None where a restart marker does follow. `end` is the
    offset after the end marker. `is_multi` says that the file announces further images.
    """

    width: int
    height: int
    bits: int
    components: int
    interval_ends: tuple[tuple[int, int | None], ...]
    end: int
    is_multi: bool


@dataclass(frozen=True)
class _Frame:
    width: int
    height: int
    bits: int
    components: bytes  # their numbers
    is_progressive: bool


def read_jpeg_layout(data: bytes) -> JpegLayout:
    """Walk all markers to the end marker; allocate nothing by what they say. Raises ImageFileError."""
    frames: list[_Frame] = []
    scans: list[bytes] = []
    ends: list[tuple[int, int | None]] = []
    at, is_multi = 2, False
    while True:
        marker, at = _next_marker(data, at)
        if marker == _EOI:
            break
        body = _segment(data, at)
        at += 2 + len(body)
        if 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            frames.append(_frame(marker, body))
        is_multi |= marker == _APP2 and body.startswith(b"MPF\0")
        if marker == _SOS:
            scans.append(body)
            at = _scan(data, at, ends)
        if len(scans) > MAX_SCANS or len(frames) > 1:
            raise ImageFileError("too many scans or frames")
    if not frames:
        raise ImageFileError("no image")
    frame = frames[0]
    _check_all_coded(frame, scans)
    _check_enough(len(data), frame)
    components = len(frame.components)
    return JpegLayout(frame.width, frame.height, frame.bits, components, tuple(ends), at, is_multi)


def decode_jpeg(data: bytes, layout: JpegLayout) -> Image.Image:
    """Decode to mode L, RGB or CMYK, not turned, with the file's metadata in `info`. Raises ImageFileError.

    A file that libjpeg decodes without a warning is complete. Cheap cameras write stray bytes between scans,
    for which it warns too: such a file has to pass `check_jpeg_complete`.
    """
    whole = data[: layout.end]
    with Image.open(io.BytesIO(whole), formats=("JPEG",)) as image:
        pixels = _decode_strictly(whole, image.mode, layout)
        if pixels is None:
            image.load()
            check_jpeg_complete(data, layout, np.asarray(image))
            return image
        decoded = Image.fromarray(pixels)
        decoded.info = image.info
        return decoded


def _decode_strictly(data: bytes, mode: str, layout: JpegLayout) -> NDArray[np.uint8] | None:
    """Return the pixels if libjpeg gives no warning; None for CMYK, which Pillow has to invert."""
    if layout.bits != 8 or mode not in _COLOURS:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, _COLOURS[mode], strict=True)
    except ValueError:
        return None
    return pixels[..., 0] if mode == "L" else pixels


def check_jpeg_complete(data: bytes, layout: JpegLayout, pixels: NDArray[np.generic]) -> None:
    """Check that no pixel of a decoded JPEG was filled in for lack of data. Raises ImageFileError.

    Decodes once more with extra bits after every stretch of coded data: a decoder with enough data never
    reads them; one without returns other pixels. `pixels` is what Pillow decoded, in the file's own mode.
    """
    try:
        with Image.open(io.BytesIO(_stuffed(data, layout)), formats=("JPEG",)) as image:
            again = np.asarray(image)
    except Exception:  # Pillow raises many exceptions on damaged bytes
        raise ImageFileError("damaged") from None
    if not np.array_equal(pixels, again):
        raise ImageFileError("fewer pixels than promised")


def _stuffed(data: bytes, layout: JpegLayout) -> bytes:
    parts, at = [], 0
    for end, next_restart in layout.interval_ends:
        parts += [data[at:end], _STUFFING]
        if next_restart is not None:
            parts += [bytes((0xFF, 0xD0 + next_restart)), _STUFFING]
        at = end
    return b"".join((*parts, data[at : layout.end]))


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    match = _MARKER.match(data, at)
    if match is None:
        raise ImageFileError("no marker")
    return match[1][0], match.end()


def _segment(data: bytes, at: int) -> bytes:
    length = int.from_bytes(data[at : at + 2], "big")
    if length < 2 or at + length > len(data):
        raise ImageFileError("truncated segment")
    return data[at + 2 : at + length]


def _frame(marker: int, body: bytes) -> _Frame:
    if marker not in _FRAMES or len(body) < 6:
        raise ImageFileError("a coding that is not read")
    bits, height, width, components = struct.unpack(">BHHB", body[:6])
    if not height or not width or len(body) != 6 + 3 * components:
        raise ImageFileError("no size")
    return _Frame(width, height, bits, body[6::3], marker == _PROGRESSIVE)


def _scan(data: bytes, at: int, ends: list[tuple[int, int | None]]) -> int:
    """Note where a scan's coded data ends, between restart markers in their order; return the next marker."""
    restart = 0
    for match in _MARKER.finditer(data, at):
        marker = match[1][0]
        if not 0xD0 <= marker <= 0xD7:
            ends.append((match.start(), restart))
            return match.start()
        if marker != 0xD0 + restart or len(ends) >= MAX_INTERVALS:
            raise ImageFileError("a restart is missing")
        ends.append((match.start(), None))
        restart = (restart + 1) % 8
    raise ImageFileError("no end")


def _check_all_coded(frame: _Frame, scans: list[bytes]) -> None:
    """Require every component in some scan, and in a progressive file every coefficient to its last bit."""
    bits_left = {component: [_UNSEEN] * _COEFFICIENTS for component in frame.components}
    for body in scans:
        if len(body) < 4 or len(body) != 4 + 2 * body[0]:
            raise ImageFileError("a scan without a head")
        first, last, approximation = body[-3:]
        if not frame.is_progressive:
            first, last, approximation = 0, _COEFFICIENTS - 1, 0
        for component in body[1:-3:2]:
            left = bits_left.get(component)
            if left is None or not first <= last < _COEFFICIENTS:
                raise ImageFileError("a scan of nothing")
            left[first : last + 1] = [approximation & 15] * (last + 1 - first)
    if any(any(left) for left in bits_left.values()):
        raise ImageFileError("a scan is missing")


def _check_enough(size: int, frame: _Frame) -> None:
    """A block takes at least one bit; it covers 8 x 8 pixels, in files of several components up to 8 x 32."""
    rows = 8 if len(frame.components) == 1 else 32
    if -(-frame.width // 8) * -(-frame.height // rows) > 8 * size:
        raise ImageFileError("fewer bytes than pixels need")
