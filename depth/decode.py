"""Decode the bytes of a depth file to a DepthMap, and report how they were read."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from depth.depth_format import FormatOptions, choose_format
from depth.depth_map import DepthMap, masked_depth
from depth.errors import DepthError
from depth.formats import jpeg, npy, png, tiff
from depth.formats.grey import read_grey
from depth.formats.npy import read_npy
from depth.formats.tiff_blocks import read_tiff
from depth.polarity import growing_with_distance
from depth.report import DepthReport, check_sanity, make_report

MAX_PIXELS = 16_777_216
_Read = Callable[[bytes, int], NDArray[np.generic]]
_SIGNATURES: Mapping[bytes, tuple[str, _Read]] = MappingProxyType(
    {
        png.SIGNATURE: ("png", read_grey),
        jpeg.SIGNATURE: ("jpeg", read_grey),
        npy.MAGIC: ("npy", read_npy),
        **{signature: ("tiff", read_tiff) for signature in tiff.SIGNATURES},
    }
)
_REFUSED: Mapping[bytes, str] = MappingProxyType(
    {b"\x76\x2f\x31\x01": "exr", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}
)


def read_depth(
    data: bytes, *, max_pixels: int = MAX_PIXELS, **options: Unpack[FormatOptions]
) -> tuple[DepthMap, DepthReport]:
    """Decode a PNG, JPEG, TIFF or NPY file; return the depth and a report of how it was read.

    Options: `preset`, or `scale` (units per metre) and `kind`; `invalid`. What is not given is guessed from
    the number type: 8 bits are relative depth, other integers millimetres, floats metres. Size is taken from
    the header and bounded by `max_pixels` before anything is allocated. Raises DepthError.
    """
    container, pixels = _read_pixels(data, max_pixels)
    reading = choose_format(pixels.dtype, **options)
    depth = masked_depth(pixels, reading.kind, reading.units_per_metre, reading.invalid)
    assumptions = reading.assumptions
    if depth.kind == "relative" and assumptions:
        depth, assumption = growing_with_distance(depth)
        assumptions += (assumption,)
    report = make_report(container, pixels.dtype, depth, reading, assumptions)
    check_sanity(report)
    return depth, report


def _read_pixels(data: bytes, max_pixels: int) -> tuple[str, NDArray[np.generic]]:
    for signature, (container, read) in _SIGNATURES.items():
        if data.startswith(signature):
            return container, read(data, max_pixels)
    for signature, reason in _REFUSED.items():
        if data.startswith(signature):
            raise DepthError(reason)
    raise DepthError("format")
