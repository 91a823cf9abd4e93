"""Doubts about a depth file that was accepted: what its numbers look like, against what they were read as."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from depth.depth_format import DepthFormat, FormatOptions
from depth.depth_map import DepthMap
from depth.planes import bends_like_inverse
from depth.report import DepthReport

FEW_VALID = 0.1
_SAMPLE_SIDE = 128
_FEW_VALUES, _ENOUGH_PIXELS = 12, 256
_GLANCE = 101
"""Pixels among which most maps have more values already."""
_EVERY = 4
"""Of the sampled pixels, which are counted for few values."""
_LARGEST_UINT8, _LARGEST_UINT16 = 255, 65_535
_CLIPPED, _CLIPPED_EIGHT_BIT = 0.02, 0.1
"""Shares of pixels at the largest number that say they were clipped; 8 bits may end at the farthest wall."""
_REACH = 0.9
"""Share of the range that the second largest number must reach if the largest is no separate mark."""
_FULL = 0.005
"""Share of the range of uint16 within which the ends of normalised values lie."""
_DEEP = 0.8
"""Median from which on values of 0 to 1 look like a z-buffer."""


def doubts(
    pixels: NDArray[np.generic],
    reading: DepthFormat,
    depth: DepthMap,
    report: DepthReport,
    options: FormatOptions,
) -> Iterator[str]:
    """Yield the codes of NOTES that apply to a file that was read with these options.

    Shares are those of every n-th row and column of a large map.
    """
    if report.format == "jpeg":
        yield "lossy"
    if report.valid_ratio < FEW_VALID:
        yield "few_valid"
    sample = tuple(slice(None, None, -(-side // _SAMPLE_SIDE)) for side in depth.shape)
    numbers = pixels[sample][depth.valid[sample]]
    if _are_few(numbers):
        yield "few_values"
    if pixels.dtype.kind in "ui":
        yield from _of_largest(pixels, numbers, reading, report)
    if report.kind != "metric" or options.get("kind") is not None or reading.preset is not None:
        return
    if pixels.dtype.kind == "f" and "scale" in report.guessed and report.farthest <= 1:
        yield "maybe_zbuffer" if report.median > _DEEP else "maybe_normalised"
    elif bends_like_inverse(depth):
        yield "maybe_inverse"


def _are_few(numbers: NDArray[np.generic]) -> bool:
    if numbers.size < _ENOUGH_PIXELS:
        return False
    glance = numbers[:: numbers.size // _GLANCE]
    return len(set(glance.tolist())) < _FEW_VALUES and np.unique(numbers[::_EVERY]).size < _FEW_VALUES


def _of_largest(
    pixels: NDArray[np.generic], numbers: NDArray[np.generic], reading: DepthFormat, report: DepthReport
) -> Iterator[str]:
    """Look at the largest number: a mark for holes, the end of clipped values, or of normalised ones."""
    if pixels.dtype.itemsize == 1:
        if numbers.size and (numbers == _LARGEST_UINT8).mean() > _CLIPPED_EIGHT_BIT:
            yield "saturated"
        return
    if pixels.max() != _LARGEST_UINT16 or _LARGEST_UINT16 in reading.invalid or reading.preset is not None:
        return
    at_end = numbers == _LARGEST_UINT16
    others = numbers[~at_end]
    if others.size == 0 or others.max() < _REACH * _LARGEST_UINT16:
        yield "maybe_holes_65535"
    elif at_end.mean() > _CLIPPED:
        yield "saturated"
    elif report.kind == "metric" and "scale" in report.guessed and others.min() < _FULL * _LARGEST_UINT16:
        yield "maybe_normalised"
