"""Read and check the directory of a TIFF: one page, one channel, blocks that cover it exactly.

No tag reaches a library, and tags that are not needed are ignored. `tiff_blocks` decodes the blocks.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from depth.errors import DepthError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_TAGS = 64
MAX_BLOCKS = 1 << 16
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
_BYTE, _SHORT, _LONG = 1, 3, 4
_FORMATS = {_BYTE: "B", _SHORT: "H", _LONG: "I"}
_DTYPES = {(1, 8): "u1", (1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 274, 277, 278, 279
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 317, 322, 323, 324, 325
_SUB_PAGES, _SAMPLE_FORMAT = 330, 339
_READ = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION,
         _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS,
         _TILE_COUNTS, _SAMPLE_FORMAT)  # fmt: skip
_BLACK_IS_ZERO, _RGB, _COLOUR_MAP = 1, 2, 3

Tags = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class TiffLayout:
    """Where the pixels of a TIFF are: blocks of rows x columns, row by row, in `spans` (offset, bytes).

    A strip is a block as wide as the image, the last one shorter; tiles are all whole. `dtype` has the file's
    byte order.
    """

    width: int
    height: int
    dtype: np.dtype[np.generic]
    compression: int
    predictor: int
    block: tuple[int, int]
    tiled: bool
    spans: tuple[tuple[int, int], ...]
    orientation: int

    @property
    def block_rows(self) -> list[int]:
        """Return how many rows each block holds."""
        rows = [self.block[0]] * len(self.spans)
        if not self.tiled:
            rows[-1] = self.height - self.block[0] * (len(rows) - 1)
        return rows


def read_tiff_layout(data: bytes, max_pixels: int) -> TiffLayout:
    """Read and check the one directory. Raises DepthError; allocates nothing by what the file says."""
    order, tags = _read_tags(data)
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    if not width or not height:
        raise DepthError("truncated")
    if width * height > max_pixels:
        raise DepthError("too_large", limit=max_pixels)
    _check_kind(tags)
    dtype = _DTYPES.get((_one(tags, _SAMPLE_FORMAT, 1), _one(tags, _BITS, 1)))
    if dtype is None:
        raise DepthError("dtype")
    block, tiled = _block(tags, width, height, max_pixels)
    spans = _spans(data, tags, tiled, math.ceil(width / block[1]) * math.ceil(height / block[0]))
    compression, predictor = _compression(tags)
    orientation = _one(tags, _ORIENTATION, 1)
    return TiffLayout(
        width, height, np.dtype(order + dtype), compression, predictor, block, tiled, spans, orientation
    )


def _read_tags(data: bytes) -> tuple[str, Tags]:
    if data[:4] not in SIGNATURES[:2]:
        raise DepthError("tiff_layout")  # BigTIFF
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        if count > MAX_TAGS:
            raise DepthError("tiff_layout")
        entries = [struct.unpack_from(order + "HHI", data, start + 2 + 12 * index) for index in range(count)]
        (next_page,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
        if next_page or any(tag == _SUB_PAGES for tag, _, _ in entries):
            raise DepthError("multi_page")
        return order, {
            tag: _values(data, order, kind, number, start + 10 + 12 * index)
            for index, (tag, kind, number) in enumerate(entries)
            if tag in _READ
        }
    except struct.error:
        raise DepthError("truncated") from None


def _values(data: bytes, order: str, kind: int, number: int, at: int) -> tuple[int, ...]:
    if kind not in _FORMATS or not 0 < number <= MAX_BLOCKS:
        raise DepthError("tiff_layout")
    form = f"{order}{number}{_FORMATS[kind]}"
    if struct.calcsize(form) > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    return struct.unpack_from(form, data, at)


def _one(tags: Tags, tag: int, default: int = 0) -> int:
    return tags.get(tag, (default,))[0]


def _check_kind(tags: Tags) -> None:
    photometric = _one(tags, _PHOTOMETRIC, _BLACK_IS_ZERO)
    if photometric == _COLOUR_MAP:
        raise DepthError("colour_mapped")
    if photometric == _RGB or _one(tags, _SAMPLES, 1) != 1 or len(tags.get(_BITS, (1,))) > 1:
        raise DepthError("channels")
    if photometric != _BLACK_IS_ZERO or _one(tags, _FILL_ORDER, 1) != 1:
        raise DepthError("tiff_layout")


def _block(tags: Tags, width: int, height: int, max_pixels: int) -> tuple[tuple[int, int], bool]:
    if _TILE_WIDTH not in tags:
        rows = _one(tags, _ROWS_PER_STRIP, height)
        if not rows:
            raise DepthError("tiff_layout")
        return (min(rows, height), width), False
    rows, columns = _one(tags, _TILE_HEIGHT), _one(tags, _TILE_WIDTH)
    if not rows or not columns or rows % 16 or columns % 16:
        raise DepthError("tiff_layout")
    if math.ceil(height / rows) * rows * math.ceil(width / columns) * columns > 2 * max_pixels + (1 << 16):
        raise DepthError("too_large", limit=max_pixels)
    return (rows, columns), True


def _spans(data: bytes, tags: Tags, tiled: bool, expected: int) -> tuple[tuple[int, int], ...]:
    offsets = tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    counts = tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS, ())
    if expected > MAX_BLOCKS:
        raise DepthError("tiff_layout")
    if not len(offsets) == len(counts) == expected:
        raise DepthError("truncated")
    if any(offset + count > len(data) for offset, count in zip(offsets, counts, strict=True)):
        raise DepthError("truncated")
    if sum(counts) > len(data):  # blocks that share bytes would decode to far more than was sent
        raise DepthError("tiff_layout")
    return tuple(zip(offsets, counts, strict=True))


def _compression(tags: Tags) -> tuple[int, int]:
    compression, predictor = _one(tags, _COMPRESSION, NONE), _one(tags, _PREDICTOR, 1)
    if compression not in (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS) or predictor not in (1, 2, 3):
        raise DepthError("tiff_layout")
    if predictor == 3 and _one(tags, _SAMPLE_FORMAT, 1) != 3:
        raise DepthError("tiff_layout")
    return compression, predictor if compression in (LZW, DEFLATE, OLD_DEFLATE) else 1
