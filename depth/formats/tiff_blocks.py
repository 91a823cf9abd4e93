"""Decode the blocks of a TIFF, each to exactly the size given by a checked layout.

LZW and PackBits go through libtiff, in a new file that contains only the blocks.
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depth.errors import DepthError
from depth.formats.orientation import upright
from depth.formats.tiff import LZW, NONE, PACKBITS, TiffLayout, read_tiff_layout

_BATCH_BYTES = 1 << 26  # decoded at once; below the size at which Pillow warns of a bomb


def read_tiff(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return the [H, W] values of a TIFF of one page and channel, upright. Raises DepthError."""
    layout = read_tiff_layout(data, max_pixels)
    row_bytes = layout.block[1] * layout.dtype.itemsize
    blocks = [data[offset : offset + count] for offset, count in layout.spans]
    sizes = [rows * row_bytes for rows in layout.block_rows]
    if layout.compression == NONE:
        pixels = b"".join(_exactly(block[:size], size) for block, size in zip(blocks, sizes, strict=True))
    elif layout.compression in (LZW, PACKBITS):
        pixels = _by_libtiff(blocks, layout, row_bytes)
    else:
        pixels = b"".join(_inflate(block, size) for block, size in zip(blocks, sizes, strict=True))
    values = _unpredict(np.frombuffer(pixels, layout.dtype).reshape(-1, layout.block[1]), layout.predictor)
    return upright(_assemble(values, layout), layout.orientation)


def _assemble(values: NDArray[np.generic], layout: TiffLayout) -> NDArray[np.generic]:
    """Arrange stacked tiles side by side, and crop them to the image."""
    if not layout.tiled:
        return values
    rows, columns = layout.block
    tiles = values.reshape(-1, -(-layout.width // columns), rows, columns).transpose(0, 2, 1, 3)
    return tiles.reshape(tiles.shape[0] * rows, -1)[: layout.height, : layout.width]


def _unpredict(values: NDArray[np.generic], predictor: int) -> NDArray[np.generic]:
    """Undo TIFF's differences, which wrap around: 2, between pixels; 3, between bytes, high ones first."""
    native = values.dtype.newbyteorder("=")
    if predictor == 2:
        unsigned = np.dtype(f"u{native.itemsize}")
        differences = values.astype(native).view(unsigned)
        return np.add.accumulate(differences, axis=1, dtype=unsigned).view(native)
    if predictor == 3:
        rows, columns = values.shape
        planes = np.add.accumulate(values.view(np.uint8), axis=1, dtype=np.uint8)
        planes = planes.reshape(rows, native.itemsize, columns).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(f">f{native.itemsize}")[..., 0].astype(native)
    return values.astype(native, copy=False)


def _inflate(block: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(block, size + 1)
    except zlib.error:
        raise DepthError("truncated") from None
    if not inflater.eof:  # the end, with its checksum, was not reached
        raise DepthError("truncated")
    return _exactly(inflated, size)


def _exactly(block: bytes, size: int) -> bytes:
    if len(block) != size:
        raise DepthError("truncated")
    return block


def _by_libtiff(blocks: list[bytes], layout: TiffLayout, row_bytes: int) -> bytes:
    if layout.compression == LZW and any(block[:1] == b"\0" for block in blocks):
        raise DepthError("tiff_layout")  # the reversed bits of before 1988, or no LZW at all
    block_bytes = layout.block[0] * row_bytes
    if block_bytes > _BATCH_BYTES:
        raise DepthError("tiff_row", limit=_BATCH_BYTES)
    pixels = []
    rows, step = layout.block_rows, _BATCH_BYTES // block_bytes
    for first in range(0, len(blocks), step):
        last = first + step
        height = sum(rows[first:last])
        file = _plain_tiff(blocks[first:last], row_bytes, height, layout)
        pixels.append(_decode(file, (row_bytes, height)))
    return b"".join(pixels)


def _decode(file: bytes, size: tuple[int, int]) -> bytes:
    try:
        with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
            pixels = image.tobytes()
            if image.size != size or image.mode != "L":
                raise DepthError("truncated")
    except Exception:  # Pillow raises many exceptions on damaged bytes; libtiff's own reason goes to stderr
        raise DepthError("truncated") from None
    return pixels


def _plain_tiff(blocks: list[bytes], row_bytes: int, height: int, layout: TiffLayout) -> bytes:
    """Write the blocks as strips of an 8-bit grey image `row_bytes` wide: bytes are all they are."""
    offsets = np.cumsum([8, *map(len, blocks)]).tolist()
    end = offsets.pop()
    lists = struct.pack(f"<{2 * len(blocks)}I", *offsets, *map(len, blocks))
    one = len(blocks) == 1
    tags = [
        (256, 1, row_bytes),
        (257, 1, height),
        (258, 1, 8),
        (259, 1, layout.compression),
        (262, 1, 1),
        (273, len(blocks), offsets[0] if one else end),
        (277, 1, 1),
        (278, 1, layout.block[0]),
        (279, len(blocks), len(blocks[0]) if one else end + 4 * len(blocks)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    header = b"II*\0" + struct.pack("<I", end + len(lists))
    return b"".join((header, *blocks, lists, struct.pack("<H", len(tags)), directory, bytes(4)))
