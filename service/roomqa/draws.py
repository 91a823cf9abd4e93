"""Random integers that are the same on every platform and with every version of NumPy.

NumPy keeps the raw bits of a generator for ever, but not what its distributions make of them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BYTES = 16  # summed for one draw of a Gaussian: mean 2040, standard deviation 295.6
_PER_SIGMA = 443  # 2^17 / 295.6


class Draws:
    """Draw integers from a key of non-negative integers; the order of the calls matters."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(key)

    def below(self, bound: int) -> int:
        """Draw one integer from 0 to bound - 1."""
        return int(self._bits.random_raw() >> 32) * bound >> 32

    def words(self, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        """Draw integers of 32 bits."""
        return self._bits.random_raw(math.prod(shape)).reshape(shape) >> np.uint64(32)

    def gaussian(self, shape: tuple[int, ...], sigma: int) -> NDArray[np.int32]:
        """Draw rounded values with standard deviation `sigma`: the sum of 16 bytes is nearly a Gaussian."""
        raw = self._bits.random_raw(2 * math.prod(shape)).view(np.uint8).reshape(-1, _BYTES)
        total = raw.sum(axis=1, dtype=np.int32).reshape(shape) - 2040
        return (total * (sigma * _PER_SIGMA) + (1 << 16)) >> 17

    def photons(self, mean_at_white: int, values: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Count the photons of every pixel: Poisson, its mean `mean_at_white` * values / 255."""
        starts, limits = _photon_limits(mean_at_white)
        keys = (values.astype(np.uint64) << np.uint64(32)) | self.words(values.shape)
        found = np.searchsorted(limits, keys.ravel(), side="right").reshape(values.shape)
        return found - starts[values]


@lru_cache(maxsize=8)
def _photon_limits(mean_at_white: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Give, for each of 256 values, where its limits start, and P(count <= k) in 32 bits, one after another.

    A value's limits are offset by the value * 2^32, so that one search serves all.
    """
    starts, limits = [], list[int]()
    for value in range(256):
        starts.append(len(limits))
        mean = mean_at_white * value / 255
        chance = total = math.exp(-mean)
        count = 0
        while (below := int(total * 2**32)) < 2**32 - 1 and count < 8 * mean_at_white:
            limits.append((value << 32) + below)
            count += 1
            chance *= mean / count
            total += chance
    return np.array(starts), np.array(limits, np.uint64)
