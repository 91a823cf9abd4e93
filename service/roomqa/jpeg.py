"""The losses of JPEG in exact integers: 4:2:0 chroma, blocks of 8 x 8, the standard's example tables.

A library's decoder would do, but each version rounds a little differently.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_LUMA = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_ONE = 12  # bits after the point of the cosines
_COSINES = np.array(
    [
        [
            round(
                math.cos((2 * x + 1) * u * math.pi / 16) * math.sqrt((1 if u == 0 else 2) / 8) * (1 << _ONE)
            )
            for x in range(8)
        ]
        for u in range(8)
    ],
    np.int64,
)


def compress(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return what a JPEG of this quality (1 to 100) leaves of a picture [H, W, 3]."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge").astype(np.int64)
    red, green, blue = np.moveaxis(padded, 2, 0)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    cb = ((-11059 * red - 21709 * green + 32768 * blue + 32768) >> 16) + 128
    cr = ((32768 * red - 27439 * green - 5329 * blue + 32768) >> 16) + 128
    luma = _lossy(luma, _table(_LUMA, quality))
    cb, cr = (_twice(_lossy(_half(part), _table(_CHROMA, quality))) - 128 for part in (cb, cr))
    back = (
        luma + ((91881 * cr + 32768) >> 16),
        luma - ((22554 * cb + 46802 * cr + 32768) >> 16),
        luma + ((116130 * cb + 32768) >> 16),
    )
    return np.stack(back, axis=2).clip(0, 255).astype(np.uint8)[:height, :width]


def _lossy(plane: Ints, table: Ints) -> Ints:
    """Round the cosine coefficients of each block to the steps of the table."""
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    blocks = plane.reshape(rows, 8, columns, 8).swapaxes(1, 2) - 128
    found = _shift(_COSINES @ blocks @ _COSINES.T, 2 * _ONE)
    steps = (2 * np.abs(found) + table) // (2 * table) * np.sign(found)
    back = _shift(_COSINES.T @ (steps * table) @ _COSINES, 2 * _ONE) + 128
    return back.swapaxes(1, 2).reshape(plane.shape).clip(0, 255)


def _table(text: str, quality: int) -> Ints:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.array(text.split(), np.int64).reshape(8, 8)
    return ((steps * scale + 50) // 100).clip(1, 255)


def _shift(values: Ints, bits: int) -> Ints:
    return (values + (1 << (bits - 1))) >> bits


def _half(plane: Ints) -> Ints:
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2] + 2) >> 2


def _twice(plane: Ints) -> Ints:
    return plane.repeat(2, axis=0).repeat(2, axis=1)
