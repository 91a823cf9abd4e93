"""Depth that is packed into the bytes of RGB or RGBA, or into rotated bits: unpack it, or notice it.

Only lossless files can carry it. The numbers that come out are in the units of the packing's preset.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.formats import png
from depth.formats.errors import AnimatedImage, ImageFileError, ImageTooLarge
from depth.formats.image_file import decode, read_header
from depth.formats.png import PngHeader

_RGB, _RGBA = 2, 6  # colour types of PNG
_SAMPLE_ROWS = 64
_SMOOTH = 0.05  # of the range, the mean step from pixel to pixel
_WILDER = 5.0  # how much more the lowest byte jumps than the depth that it is part of


@dataclass(frozen=True)
class Packing:
    """How bytes become numbers: [H, W, channels] uint8, or [H, W] uint16 for one channel, to [H, W].

    `lowest` is the channel of the least significant byte.
    """

    channels: int
    unpack: Callable[[NDArray[np.generic]], NDArray[np.generic]]
    lowest: int = 0


def read_packed(data: bytes, max_pixels: int, packing: Packing) -> NDArray[np.generic]:
    """Return the [H, W] numbers that are packed in the channels of a PNG. Raises DepthError."""
    if not data.startswith(png.SIGNATURE):
        raise DepthError("packed_container")
    try:
        header = read_header(data, max_pixels)
        if not isinstance(header, PngHeader) or header.bits != 8 or header.colour_type not in (_RGB, _RGBA):
            raise DepthError("packed_container")
        pixels = np.asarray(decode(data, header))
    except ImageTooLarge:
        raise DepthError("too_large", limit=max_pixels) from None
    except AnimatedImage:
        raise DepthError("multi_page") from None
    except ImageFileError:
        raise DepthError("truncated") from None
    if pixels.shape[2] < packing.channels:
        raise DepthError("packed_container")
    return packing.unpack(pixels)


def unpack_grey(pixels: NDArray[np.generic], packing: Packing) -> NDArray[np.generic]:
    """Unpack the bits of one channel. Raises DepthError for other numbers than uint16."""
    if pixels.dtype.newbyteorder("=") != np.uint16:
        raise DepthError("preset_sixteen_bit")
    return packing.unpack(pixels)


def packings_like(pixels: NDArray[np.generic]) -> tuple[str, ...]:
    """Return the names of the packings that a [H, W, 3 or 4] uint8 image looks like, the likeliest first.

    Packed depth is smooth where its lowest byte is wild; in a picture all channels are about equally smooth.
    """
    rows = pixels[:: -(-pixels.shape[0] // _SAMPLE_ROWS)]
    if rows.shape[1] < 2:
        return ()
    rough: dict[str, float] = {}
    for name, packing in PACKINGS.items():
        if not 1 < packing.channels <= rows.shape[2]:
            continue
        with np.errstate(invalid="ignore"):  # bytes of a picture may be no number
            whole = _roughness(packing.unpack(rows).astype(np.float64))
        lowest = _roughness(rows[..., packing.lowest].astype(np.float64))
        if whole < _SMOOTH and _WILDER * whole < lowest < np.inf:
            rough[name] = whole
    return tuple(sorted(rough, key=lambda name: rough[name]))


def _roughness(rows: NDArray[np.float64]) -> float:
    """Return the mean step between neighbours in a row, as a share of the range; infinite if it has none."""
    if not np.isfinite(rows).all():
        return np.inf
    low, high = np.percentile(rows, (2, 98))
    return (
        float(np.abs(np.diff(rows.clip(low, high), axis=1)).mean() / (high - low)) if high > low else np.inf
    )


def _low_first(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """R + 256 G + 65536 B."""
    wide = pixels[..., :3].astype(np.uint32)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16


def _five_bits_each(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """R holds the bits from 10 on in steps of 4, G bits 5 to 9 and B bits 0 to 4, both in steps of 8."""
    wide = pixels[..., :3].astype(np.uint32)
    return wide[..., 0] >> 2 << 10 | wide[..., 1] >> 3 << 5 | wide[..., 2] >> 3


def _float_bytes(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """The bytes B, G, R, A are a little-endian float32."""
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]).view("<f4")[..., 0]


def _fractions(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """R + G / 255 + B / 255^2 + A / 255^3, of bytes as 0 to 1."""
    weights = 1 / 255.0 ** np.arange(1, 5)
    return (pixels[..., :4].astype(np.float64) @ weights).astype(np.float32)


def _rotated(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Bits rotated to the left by three."""
    native = pixels.astype(np.uint16)
    return native >> 3 | native << 13


PACKINGS: Mapping[str, Packing] = MappingProxyType(
    {
        "carla": Packing(3, _low_first),
        "spatialbot": Packing(3, _five_bits_each, lowest=2),
        "tartanair": Packing(4, _float_bytes, lowest=2),
        "float-rgba": Packing(4, _fractions, lowest=2),
        "sunrgbd": Packing(1, _rotated),
    }
)
"""By the name of their preset."""
