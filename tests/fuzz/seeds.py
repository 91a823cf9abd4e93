"""Good small files of every container; the same with pixels missing but every length and sum in order."""

from __future__ import annotations

import io
import re
import struct
import zlib
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.depth import tiffs
from tests.depth.files import chunk, jpeg, npy, png8, png16
from tests.fuzz import other_formats
from tests.fuzz.damage import png_chunks

HEIGHT, WIDTH = 24, 32
SHAPE = (HEIGHT, WIDTH)


def seeds() -> list[tuple[str, bytes]]:
    """Return (container, file) pairs that all decode, with `other_formats.OPTIONS` of their container."""
    metres = _metres()
    millimetres, grey = (metres * 1000).astype("u2"), (metres * 30).astype("u1")
    equal = np.stack([grey] * 3, axis=-1)
    png = [png16(millimetres), png8(grey), png8(equal), _palette(grey), _with_exif(grey)]
    arrays = [metres.astype(dtype) for dtype in ("<f4", ">f8", "<f2")]
    numpys = [
        *map(npy, arrays),
        npy(millimetres),
        npy(grey),
        npy(np.asfortranarray(millimetres.astype(">i4"))),
    ]
    jpegs = [
        jpeg(grey),
        jpeg(equal),
        jpeg(grey, progressive=True),
        jpeg(grey, restart_marker_blocks=2, optimize=True),
    ]
    return [
        *(("png", data) for data in png),
        *(("npy", data) for data in numpys),
        *(("tiff", data) for data in _tiffs(metres, millimetres, grey)),
        *(("jpeg", data) for data in jpegs),
        *other_formats.seeds(metres),
    ]


def shorten(container: str, data: bytes, rng: Random) -> bytes:
    """Return a file that lacks pixels and does not say so."""
    if container == "ros":
        return data[:12] + _short_png(data[12:], rng)
    if container in _SHORTEN:
        return _SHORTEN[container](data, rng)
    return other_formats.shorten(container, data, rng)


def _metres() -> NDArray[np.float64]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).normal(0, 0.02, SHAPE)
    return 1 + 3 * (1 + np.sin(columns / 6)) / 2 + 2 * rows / HEIGHT + noise


def _tiffs(
    metres: NDArray[np.float64], millimetres: NDArray[np.uint16], grey: NDArray[np.uint8]
) -> list[bytes]:
    floats = metres.astype("f4")
    return [
        tiffs.tiff(millimetres),
        tiffs.tiff(floats, order=">", rows_per_strip=5),
        tiffs.tiff(millimetres, compression=tiffs.LZW, predictor=2, rows_per_strip=8),
        tiffs.tiff(floats, compression=tiffs.LZW, predictor=3),
        tiffs.tiff(floats, compression=tiffs.DEFLATE, tile=(16, 16)),
        tiffs.tiff(grey, compression=tiffs.PACKBITS, rows_per_strip=6),
        tiffs.tiff(millimetres, order=">", compression=tiffs.DEFLATE, predictor=2),
    ]


def _palette(grey: NDArray[np.uint8]) -> bytes:
    image, buffer = Image.fromarray(grey).convert("P"), io.BytesIO()
    image.putpalette([level for level in range(256) for _ in range(3)])
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _with_exif(grey: NDArray[np.uint8]) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(grey).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def _short_png(data: bytes, rng: Random) -> bytes:
    """Cut the pixel stream anywhere, or between two rows, which Pillow does not mind."""
    chunks = png_chunks(data)
    stream = b"".join(body for kind, body in chunks if kind == b"IDAT")
    raw = zlib.decompress(stream)
    rows = raw[: len(raw) // HEIGHT * rng.randrange(1, HEIGHT)]
    anywhere = raw[: rng.randrange(1, len(raw))]
    short = rng.choice(
        (zlib.compress(rows), zlib.compress(anywhere), stream[: rng.randrange(1, len(stream))])
    )
    others = [(kind, body) for kind, body in chunks if kind not in (b"IDAT", b"IEND")]
    return data[:8] + b"".join(chunk(*one) for one in (*others, (b"IDAT", short), (b"IEND", b"")))


def _short_npy(data: bytes, rng: Random) -> bytes:
    start = 10 + int.from_bytes(data[8:10], "little")
    return data[: rng.randrange(start, len(data))]


def _short_tiff(data: bytes, rng: Random) -> bytes:
    """Lower the byte count of one strip or tile, or leave the last one out of the lists."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, many, value = struct.unpack_from(order + "HHII", data, at)
        if tag in (279, 325):
            if many > 1 and rng.random() < 0.3:
                return data[: at + 4] + struct.pack(order + "I", many - 1) + data[at + 8 :]
            place = at + 8 if many == 1 else value + 4 * rng.randrange(many)
            (length,) = struct.unpack_from(order + "I", data, place)
            shorter = struct.pack(order + "I", rng.randrange(length))
            return data[:place] + shorter + data[place + 4 :]
    raise AssertionError("a seed without byte counts")


def _short_jpeg(data: bytes, rng: Random) -> bytes:
    """Cut coded data anywhere, or leave a stretch between restart markers out; end properly."""
    restarts = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    if len(restarts) > 1 and rng.random() < 0.3:
        first, last = sorted(rng.sample(range(len(restarts)), 2))
        return data[: restarts[first]] + data[restarts[last] :]
    first = data.index(b"\xff\xda") + 14
    return data[: rng.randrange(first, len(data) - 2)] + b"\xff\xd9"


_SHORTEN = {
    **dict.fromkeys(
        ("png", "carla", "tartanair", "sunrgbd", "spatialbot", "float-rgba", "airsim-vis"), _short_png
    ),
    "npy": _short_npy,
    "tiff": _short_tiff,
    "jpeg": _short_jpeg,
}
