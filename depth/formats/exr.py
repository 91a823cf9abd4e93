"""Read the depth channel of an OpenEXR file: the header by our own code, the pixels by the library.

The library is an extra, `tosa-vqa[exr]`. Only files whose header was read and bounded here reach it.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError

SIGNATURE = b"\x76\x2f\x31\x01"
MAX_CHANNELS = 64
_MAX_ATTRIBUTES = 128
_MOST_CHANNELS = 4  # of the largest picture; of smaller ones more
_LONGEST_NAME = 255
_TILES, _LONG_NAMES = 0x200, 0x400
_KNOWN_FLAGS = _TILES | _LONG_NAMES  # others: deep data, several parts
_ROWS_PER_CHUNK = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
"""By compression: none, RLE, ZIPS, ZIP, PIZ, PXR24, B44, B44A, DWAA, DWAB."""
_TYPES = {0: "u4", 1: "f2", 2: "f4"}
_DEPTH_NAMES = ("z", "v", "depth", "distance")
"""Last words of the names of channels that are depth: Z of most renderers, V of Blender's depth output."""


@dataclass(frozen=True)
class ExrHeader:
    """Hold what is needed of a header: channel names with their types, and both windows (x0, y0, x1, y1)."""

    channels: dict[str, np.dtype[np.generic]]
    data_window: tuple[int, int, int, int]
    display_window: tuple[int, int, int, int]


def read_exr(data: bytes, max_pixels: int, key: str | None = None) -> NDArray[np.generic]:
    """Return one channel as [H, W] of the display window; what the file does not cover is NaN.

    The channel is `key`, the only one, or the only one with a name of depth. Raises DepthError.
    """
    header = read_exr_header(data, max_pixels)
    channel = _choose(header, key)
    pixels = _decode(data, header, channel)
    return _on_display(pixels, header)


def read_exr_header(data: bytes, max_pixels: int) -> ExrHeader:
    """Read and check the header, and that all chunks of scan lines are there. Raises DepthError.

    Nothing is allocated by what the file says.
    """
    if len(data) < 9:
        raise DepthError("truncated")
    (version,) = struct.unpack_from("<I", data, 4)
    if version & 0xFF != 2 or version & ~0xFF & ~_KNOWN_FLAGS:
        raise DepthError("exr_layout")
    try:
        found, end = _attributes(data)
        windows = [struct.unpack("<4i", found[name]) for name in ("dataWindow", "displayWindow")]
        channels = dict(_channels(found["channels"]))
        compression = found["compression"][0]
    except (struct.error, KeyError, IndexError, UnicodeDecodeError):
        raise DepthError("truncated") from None
    for left, top, right, bottom in windows:
        if right < left or bottom < top:
            raise DepthError("truncated")
        if (right - left + 1) * (bottom - top + 1) > max_pixels:
            raise DepthError("too_large", limit=max_pixels)
    left, top, right, bottom = windows[0]
    if (right - left + 1) * (bottom - top + 1) * len(channels) > _MOST_CHANNELS * max_pixels:
        raise DepthError("exr_layout")  # the library decodes all channels
    if not version & _TILES:
        _check_chunks(data, end, bottom - top + 1, compression)
    return ExrHeader(channels, windows[0], windows[1])


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    """Return the attributes, and where the header ends."""
    found: dict[str, bytes] = {}
    at = 8
    for _ in range(_MAX_ATTRIBUTES):
        name, at = _name(data, at)
        if not name:
            return found, at
        _, at = _name(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        end = at + 4 + size
        if size < 0 or end > len(data):
            raise DepthError("truncated")
        found[name] = data[at + 4 : end]
        at = end
    raise DepthError("exr_layout")


def _check_chunks(data: bytes, at: int, height: int, compression: int) -> None:
    """Check that the table at this offset leads to a whole chunk for each group of rows."""
    if compression not in _ROWS_PER_CHUNK:
        raise DepthError("exr_layout")
    count = -(-height // _ROWS_PER_CHUNK[compression])
    first = at + 8 * count
    if first > len(data):
        raise DepthError("truncated")
    for (offset,) in struct.iter_unpack("<Q", data[at:first]):
        if not first <= offset <= len(data) - 8:
            raise DepthError("truncated")
        (size,) = struct.unpack_from("<i", data, offset + 4)
        if size < 0 or offset + 8 + size > len(data):
            raise DepthError("truncated")


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at, at + _LONGEST_NAME + 1)
    if end < 0:
        raise DepthError("truncated")
    return data[at:end].decode("ascii"), end + 1


def _channels(data: bytes) -> Iterator[tuple[str, np.dtype[np.generic]]]:
    at = 0
    for _ in range(MAX_CHANNELS):
        name, at = _name(data, at)
        if not name:
            return
        kind, _, step_x, step_y = struct.unpack_from("<i4s2i", data, at)
        if kind not in _TYPES or (step_x, step_y) != (1, 1):
            raise DepthError("exr_layout")
        yield name, np.dtype(_TYPES[kind])
        at += 16
    raise DepthError("exr_layout")


def _choose(header: ExrHeader, key: str | None) -> str:
    names = tuple(header.channels)
    if key is not None:
        if key not in names:
            raise DepthError("exr_channel", choices=_plain(names))
        return key
    named = (
        names if len(names) == 1 else [name for name in names if name.split(".")[-1].lower() in _DEPTH_NAMES]
    )
    if len(named) != 1:
        raise DepthError("exr_channel", choices=_plain(names))
    return named[0]


def _plain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that an error may repeat."""
    return tuple(name for name in names if name.replace(".", "").replace("_", "").replace(" ", "").isalnum())


def _decode(data: bytes, header: ExrHeader, channel: str) -> NDArray[np.generic]:
    left, top, right, bottom = header.data_window
    try:
        import OpenEXR
    except ImportError:
        raise DepthError("exr_missing") from None
    try:
        with OpenEXR.File(io.BytesIO(data), separate_channels=True, num_threads=0) as file:
            pixels = np.array(file.channels()[channel].pixels)
    except Exception:  # the library raises many exceptions on damaged bytes; a caller treats all alike
        raise DepthError("truncated") from None
    if pixels.shape != (bottom - top + 1, right - left + 1):
        raise DepthError("truncated")
    return pixels


def _on_display(pixels: NDArray[np.generic], header: ExrHeader) -> NDArray[np.generic]:
    """Put the pixels where the display window shows them."""
    if header.data_window == header.display_window:
        return pixels
    left, top, right, bottom = header.display_window
    shown = np.full((bottom - top + 1, right - left + 1), np.nan, np.result_type(pixels, np.float32))
    x, y = header.data_window[0] - left, header.data_window[1] - top
    inside = pixels[max(0, -y) : max(0, shown.shape[0] - y), max(0, -x) : max(0, shown.shape[1] - x)]
    shown[max(0, y) : max(0, y) + inside.shape[0], max(0, x) : max(0, x) + inside.shape[1]] = inside
    return shown
