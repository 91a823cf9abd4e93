"""Decode the bytes of a depth file to a DepthMap, and report how they were read."""

from dataclasses import replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from depth.depth_format import DepthFormat, FormatOptions, choose_format
from depth.depth_map import DepthMap, masked_depth
from depth.doubts import doubts
from depth.eight_bits import check_saturation, hole_values
from depth.formats.containers import read_file
from depth.notes import note
from depth.polarity import WHITE, growing_with_distance
from depth.report import DepthReport, check_sanity, make_report

MAX_PIXELS = 16_777_216


def read_depth(
    data: bytes, *, max_pixels: int = MAX_PIXELS, **options: Unpack[FormatOptions]
) -> tuple[DepthMap, DepthReport]:
    """Decode a depth file of any format in `formats/containers.py`; return the depth and how it was read.

    Options: `preset`, or `scale` (units per metre) and `kind`; `invalid`; `key` of an NPZ or OpenEXR; `shape`
    of numbers without a header. What is not given is guessed: 8 bits are relative depth, other integers
    millimetres, floats metres; the pixels of 8 bits say whether 0 is a hole. Size is taken from the header
    and bounded by `max_pixels` before anything is allocated. Raises DepthError.
    """
    container, pixels, assumed = read_file(
        data, max_pixels, options.get("preset"), options.get("key"), options.get("shape")
    )
    reading = choose_format(pixels.dtype, **options)
    reading, codes = _with_holes(pixels, reading, container, is_given=options.get("invalid") is not None)
    depth = masked_depth(pixels, reading.kind, reading.units_per_metre, reading.invalid)
    if pixels.dtype.itemsize == 1:
        check_saturation(pixels, depth.valid)
    assumptions, is_turned = (*assumed, *reading.assumptions), False
    if depth.kind == "relative" and reading.assumptions:
        depth, is_turned, assumption = growing_with_distance(depth)
        assumptions += (assumption,)
    report = make_report(container, pixels.dtype, depth, reading, assumptions, WHITE if is_turned else None)
    check_sanity(report)
    notes = (*codes, *doubts(pixels, reading, depth, report, options))
    return depth, replace(report, notes=tuple(map(note, notes)))


def _with_holes(
    pixels: NDArray[np.generic], reading: DepthFormat, container: str, *, is_given: bool
) -> tuple[DepthFormat, tuple[str, ...]]:
    """Decide what 0 means in 8 bits that are not metric; return the reading and the code of a note.

    Only where nobody said which numbers are holes.
    """
    if pixels.dtype.itemsize > 1 or reading.kind == "metric" or is_given:
        return reading, ()
    holes = hole_values(pixels, is_lossy=container == "jpeg")
    if holes is None:
        return reading, ()
    invalid = reading.invalid + tuple(map(float, holes))
    return replace(reading, invalid=invalid), ("zeros_are_holes" if holes else "zeros_are_depth",)
