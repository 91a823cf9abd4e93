"""Seeds, damage and missing pixels for the formats beyond PNG, JPEG, TIFF and NPY."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.depth import writers
from tests.depth.files import png8, png16
from tests.fuzz.damage import INTERESTING, Mutator, blind, png
from tests.fuzz.damage import npy as npy_mutator

OPTIONS: dict[str, dict[str, Any]] = {
    "npz": {"key": "depth"},
    "raw": {"shape": "32x24"},
    "carla": {"preset": "carla"},
    "tartanair": {"preset": "tartanair"},
    "sunrgbd": {"preset": "sunrgbd"},
    "spatialbot": {"preset": "spatialbot"},
    "float-rgba": {"preset": "float-rgba"},
    "airsim-vis": {"preset": "airsim-vis"},
    "exr of two": {"key": "B"},
}
"""What has to be said with the files of a kind."""


def seeds(metres: NDArray[np.float64]) -> list[tuple[str, bytes]]:
    """Return (kind, file) pairs of [24, 32] metres that all decode with the OPTIONS of their kind."""
    floats, millimetres = metres.astype("f4"), (metres * 1000).astype("u2")
    return [
        ("npz", writers.npz(depth=floats, other=millimetres)),
        ("npz", writers.npz(compressed=True, depth=millimetres, rgb=np.zeros((2, 2, 3)))),
        ("pfm", writers.pfm(floats)),
        ("pgm", writers.pgm(millimetres)),
        ("pgm", writers.pgm((metres * 30).astype("u1"))),
        ("colmap", writers.colmap(floats)),
        ("ros", writers.compressed_depth(millimetres)),
        ("ros", writers.compressed_depth_32fc1(floats)),
        ("raw", millimetres.astype("<u2").tobytes()),
        ("raw", floats.astype("<f4").tobytes()),
        ("carla", writers.carla(metres)),
        ("tartanair", writers.tartanair(floats)),
        ("sunrgbd", png16(millimetres << 3 | millimetres >> 13)),
        ("spatialbot", writers.spatialbot(millimetres)),
        ("float-rgba", writers.float_rgba(metres / 8)),
        ("airsim-vis", png8((metres * 30).astype("u1"))),
        ("exr of two", writers.exr(A=metres.astype("f2"), B=floats)),
        *(("exr", writers.exr(V=floats, compression=kind)) for kind in ("none", "zip", "piz")),
    ]


def damage_zip(data: bytes, rng: Random) -> bytes:
    """Damage an array inside, with sums that come out right, or numbers in the list of members."""
    if rng.random() < 0.6:
        try:
            return _rezipped(data, lambda inner: npy_mutator(inner, rng))
        except Exception:  # zipfile raises nearly anything for what has been damaged before
            return blind(data, rng)
    marks = [match.start() for match in re.finditer(rb"PK\x01\x02|PK\x05\x06|PK\x03\x04", data)]
    at = rng.choice(marks or [0]) + 4 + 2 * rng.randrange(20)
    return data[:at] + struct.pack("<H", rng.choice(INTERESTING) & 0xFFFF) + data[at + 2 :]


def damage_text_header(data: bytes, rng: Random) -> bytes:
    """Write another number into a header of text."""
    numbers = [match.span() for match in re.finditer(rb"\d+", data[:24])]
    if not numbers:
        return blind(data, rng)
    start, stop = rng.choice(numbers)
    word = rng.choice(
        (b"0", b"-1", b"1e9", b"99999999999", b"32", b"", str(rng.choice(INTERESTING)).encode())
    )
    return data[:start] + word + data[stop:]


def damage_ros(data: bytes, rng: Random) -> bytes:
    """Damage the PNG, or one of the numbers in front of it."""
    if rng.random() < 0.6:
        return data[:12] + png(data[12:], rng)
    at = 4 * rng.randrange(3)
    value = rng.choice((0.0, -1.0, 1.0, 1e-30, 1e30, float("nan"), float("inf"), 10100.0, -1009.0))
    return data[:at] + struct.pack("<f", value) + data[at + 4 :]


def damage_exr(data: bytes, rng: Random) -> bytes:
    """Write another number into an attribute, or into the table of where rows are."""
    end = data.find(b"\0\0", 200) + 400
    at = rng.randrange(4, max(5, min(len(data) - 4, end)))
    return data[:at] + struct.pack("<I", rng.choice(INTERESTING)) + data[at + 4 :]


def shorten(kind: str, data: bytes, rng: Random) -> bytes:
    """Cut pixels off where nothing else says how many there are."""
    match kind:
        case "npz":
            return _rezipped(data, lambda inner: inner[: rng.randrange(128, len(inner))])
        case "exr" | "exr of two":
            return data[: rng.randrange(400, len(data))]
        case _:
            start = 32 if kind != "raw" else 0
            return data[: rng.randrange(start, len(data))]


def _rezipped(data: bytes, change: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist()[:8]:
            if info.file_size > 1 << 20:
                raise ValueError("too large to damage")
            inner = old.read(info)
            new.writestr(info.filename, change(inner) if info.filename == "depth.npy" else inner)
    return buffer.getvalue()


MUTATORS: dict[str, Mutator] = {
    "npz": damage_zip,
    "pfm": damage_text_header,
    "pgm": damage_text_header,
    "colmap": damage_text_header,
    "ros": damage_ros,
    "raw": blind,
    "carla": png,
    "tartanair": png,
    "sunrgbd": png,
    "spatialbot": png,
    "float-rgba": png,
    "airsim-vis": png,
    "exr": damage_exr,
    "exr of two": damage_exr,
}
