"""Purity of merged groups: the share of patches that show the same thing as the rest of their token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.roomqa.render import Frame


def patch_ids(frame: Frame, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return what each patch mostly shows [P]: the index of a thing, or floor, wall, ceiling (negative)."""
    rows, columns = grid
    height, width = frame.ids.shape
    patches = frame.ids[: height // rows * rows, : width // columns * columns].astype(np.int64)
    patches = patches.reshape(rows, height // rows, columns, width // columns).transpose(0, 2, 1, 3)
    return np.array([_commonest(patch) for patch in patches.reshape(rows * columns, -1)])


def purity(source: NDArray[np.int64], ids: NDArray[np.int64]) -> float:
    """Share of patches that show what most of their token's patches show; a dropped patch counts as wrong.

    It is 1 when every token stands for one thing only. source [P]: the token of each patch, -1 if dropped.
    """
    kept = source >= 0
    kinds, kind = np.unique(ids, return_inverse=True)
    pairs = np.bincount(source[kept] * len(kinds) + kind[kept], minlength=(source.max() + 1) * len(kinds))
    return float(pairs.reshape(-1, len(kinds)).max(axis=1).sum() / len(ids))


def _commonest(values: NDArray[np.int64]) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
