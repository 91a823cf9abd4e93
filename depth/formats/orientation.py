"""Turn pixels upright by an orientation tag (EXIF, TIFF 274)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

_Turn = Callable[[NDArray[np.generic]], NDArray[np.generic]]
_TURNS: Mapping[int, _Turn] = MappingProxyType(
    {
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.T,
        6: lambda pixels: pixels.T[:, ::-1],
        7: lambda pixels: pixels.T[::-1, ::-1],
        8: lambda pixels: pixels.T[::-1],
    }
)


def upright(pixels: NDArray[np.generic], orientation: object) -> NDArray[np.generic]:
    """Return a view of [H, W] pixels turned and mirrored by orientation 1 to 8; others change nothing."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else turn(pixels)
