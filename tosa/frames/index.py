"""A sorted index of keys, which finds, takes in and drops many at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyIndex:
    """Map distinct int64 keys to the numbers 0 to n - 1 of the rows that hold them.

    A dictionary would do the same, one key at a time, and take four times the memory.
    """

    def __init__(self) -> None:
        self._keys, self._rows = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Return the memory that is used."""
        return self._keys.nbytes + self._rows.nbytes

    def find(self, keys: Tensor) -> Tensor:
        """Return the row of each key [m], -1 where there is none."""
        if not len(self):
            return torch.full_like(keys, -1)
        at = torch.searchsorted(self._keys, keys).clamp(max=len(self) - 1)
        return torch.where(self._keys[at] == keys, self._rows[at], -1)

    def add(self, keys: Tensor) -> Tensor:
        """Give the next rows to the keys [m] that are new; return which they are, in order: [new].

        Of equal keys the first counts.
        """
        distinct, group = torch.unique(keys, return_inverse=True)
        first = torch.full_like(distinct, len(keys)).scatter_reduce(0, group, torch.arange(len(keys)), "amin")
        new = torch.sort(first[self.find(distinct) < 0]).values
        order = torch.sort(keys[new])
        at = torch.searchsorted(self._keys, order.values) + torch.arange(len(new))
        is_old = torch.ones(len(self) + len(new), dtype=torch.bool)
        is_old[at] = False
        self._keys = _merged(is_old, at, self._keys, order.values)
        self._rows = _merged(is_old, at, self._rows, len(self._rows) + order.indices)
        return new

    def keep(self, kept: Tensor) -> None:
        """Drop the keys of all rows but these, bool [n]; those that are left close up."""
        number = torch.cumsum(kept, 0) - 1
        is_kept = kept[self._rows]
        self._keys, self._rows = self._keys[is_kept], number[self._rows[is_kept]]


def _merged(is_old: Tensor, at: Tensor, old: Tensor, new: Tensor) -> Tensor:
    merged = torch.empty(len(is_old), dtype=old.dtype)
    merged[is_old], merged[at] = old, new
    return merged
