"""Draw which patches of an image were merged. Knows a patch grid and the group of every patch, no model."""

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GOLDEN_ANGLE = 0.618033988749895
"""Turns of the colour wheel between neighbouring group numbers; keeps their hues apart."""


def draw_groups(image: Image.Image, source: NDArray[np.int64], grid: tuple[int, int]) -> Image.Image:
    """Paint every merged group in its mean colour, its edge in a colour of its own; lone patches stay.

    source [P] is the group of each patch of the row-major grid (rows, columns), -1 for a dropped one (black).
    """
    pixels = np.asarray(image.convert("RGB"))
    groups = _group_of_pixels(source.reshape(grid), pixels.shape[:2])
    patches = np.bincount(source[source >= 0], minlength=int(source.max()) + 1)
    is_merged = (groups >= 0) & (patches[groups] > 1)
    painted = np.where(is_merged[..., None], _mean_colour(pixels, groups)[groups], pixels)
    painted[groups < 0] = 0
    edges = _edges(groups) & is_merged
    painted[edges] = _hues(len(patches))[groups[edges]]
    return Image.fromarray(painted.astype(np.uint8))


def _group_of_pixels(groups: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    rows = np.arange(shape[0]) * groups.shape[0] // shape[0]
    columns = np.arange(shape[1]) * groups.shape[1] // shape[1]
    return groups[np.ix_(rows, columns)]


def _mean_colour(pixels: NDArray[np.uint8], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return [number of groups + 1, 3]; the last row serves group -1."""
    index = groups.ravel() + 1
    count = np.maximum(np.bincount(index), 1)
    sums = np.stack([np.bincount(index, pixels[..., channel].ravel()) for channel in range(3)], axis=1)
    return np.roll(sums / count[:, None], -1, axis=0)


def _edges(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pixels of a group that touch another group."""
    edges = np.zeros(groups.shape, dtype=bool)
    vertical, horizontal = groups[1:] != groups[:-1], groups[:, 1:] != groups[:, :-1]
    edges[1:] |= vertical
    edges[:-1] |= vertical
    edges[:, 1:] |= horizontal
    edges[:, :-1] |= horizontal
    return edges


def _hues(number: int) -> NDArray[np.float64]:
    hues = [colorsys.hsv_to_rgb(group * GOLDEN_ANGLE % 1, 0.9, 1.0) for group in range(number)]
    return np.array(hues) * 255
