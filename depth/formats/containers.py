"""The formats of depth files, recognised by their first bytes: one table, and the way through it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from depth.depth_format import Assumption
from depth.errors import DepthError
from depth.formats import colmap, exr, jpeg, npy, npz, pfm, pgm, png, ros, tiff
from depth.formats.grey import read_grey
from depth.formats.packed import PACKINGS, read_packed, unpack_grey
from depth.formats.raw import parse_shape, read_raw
from depth.formats.tiff_blocks import read_tiff
from depth.formats.unread import UNREAD

_Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Container:
    """One format: how it is recognised and read, and what about it is read, in a sentence for people.

    `read` takes the bytes and the most pixels, `read_key` also the name of an array or a channel.
    """

    name: str
    title: str
    about: str
    matches: Callable[[bytes], bool]
    read: Callable[[bytes, int], _Pixels] | None = None
    read_key: Callable[[bytes, int, str | None], _Pixels] | None = None


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


CONTAINERS: tuple[Container, ...] = (
    Container(
        "png",
        "PNG",
        "grey of 8 or 16 bits; RGB or RGBA with a preset that packs",
        _starts(png.SIGNATURE),
        read_grey,
    ),
    Container(
        "jpeg", "JPEG", "grey of 8 bits, lossy: relative depth only", _starts(jpeg.SIGNATURE), read_grey
    ),
    Container(
        "tiff",
        "TIFF",
        "one page and channel of 8 or 16 bits or floats; uncompressed, Deflate, LZW or PackBits",
        _starts(*tiff.SIGNATURES),
        read_tiff,
    ),
    Container(
        "npy",
        "NPY",
        "integers of 8 to 64 bits and floats, (H, W) or with further axes of length 1",
        _starts(npy.MAGIC),
        npy.read_npy,
    ),
    Container(
        "npz",
        "NPZ",
        "one array as in NPY: the only one, or the one that `depth_key` names",
        _starts(*npz.SIGNATURES),
        read_key=npz.read_npz,
    ),
    Container(
        "exr",
        "OpenEXR",
        "one part; the only channel, Z, V or Depth, or what `depth_key` names; with the extra `exr`",
        _starts(exr.SIGNATURE),
        read_key=exr.read_exr,
    ),
    Container("pfm", "PFM", "one channel (Pf), rows from the bottom up", pfm.is_pfm, pfm.read_pfm),
    Container("pgm", "PGM", "binary (P5), 8 or 16 bits", pgm.is_pgm, pgm.read_pgm),
    Container(
        "compressedDepth",
        "ROS compressedDepth",
        "16UC1, and 32FC1 as metres; coded as PNG",
        ros.is_compressed_depth,
        ros.read_compressed_depth,
    ),
    Container(
        "colmap",
        "COLMAP depth map",
        "float32, in the unit of the reconstruction",
        colmap.is_colmap,
        colmap.read_colmap,
    ),
)
RAW = Container(
    "raw",
    "numbers without a header",
    "little-endian uint8, uint16, float32 or float64, by the length of the file; needs `depth_shape`",
    lambda data: False,
)
_STRONG = ("png", "jpeg", "tiff", "npy", "npz", "exr")
"""Formats whose first bytes hardly begin a list of plain numbers."""


def readable() -> tuple[str, ...]:
    """Return the titles of the formats that this installation reads."""
    has_exr = find_spec("OpenEXR") is not None
    return tuple(one.title for one in (*CONTAINERS, RAW) if one.name != "exr" or has_exr)


def read_file(
    data: bytes, max_pixels: int, preset: str | None, key: str | None, shape: str | None
) -> tuple[str, _Pixels, tuple[Assumption, ...]]:
    """Return the name of the format, the [H, W] numbers of the file, and what was assumed to read them.

    Raises DepthError.
    """
    packing = PACKINGS.get(preset or "")
    if packing is not None and packing.channels > 1:
        return "png", read_packed(data, max_pixels, packing), ()
    name, pixels, assumed = _read(data, max_pixels, key, shape)
    return name, pixels if packing is None else unpack_grey(pixels, packing), assumed


def _read(
    data: bytes, max_pixels: int, key: str | None, shape: str | None
) -> tuple[str, _Pixels, tuple[Assumption, ...]]:
    found = next((one for one in CONTAINERS if one.matches(data)), None)
    if shape is not None:
        if found is not None and found.name in _STRONG:
            raise DepthError("shape_of_file")
        pixels = read_raw(data, max_pixels, parse_shape(shape))
        sentence = f"By the length of the file its numbers were taken as little-endian {pixels.dtype.name}."
        return "raw", pixels, (Assumption("dtype", sentence),)
    if found is None:
        reason = next((reason for reason, _, matches in UNREAD if matches(data)), "format")
        raise DepthError(reason)
    if found.read_key is not None:
        return found.name, found.read_key(data, max_pixels, key), ()
    if key is not None:
        raise DepthError("key_of_one")
    assert found.read is not None, "a container is read in one of both ways"
    return found.name, found.read(data, max_pixels), ()
