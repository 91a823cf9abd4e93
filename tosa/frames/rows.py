"""Columns of equal length that grow in place: rows are appended often, and dropped seldom."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FIRST_ROWS = 256


class Rows:
    """Hold columns by name, each [n, ...] on the CPU; space doubles when it is full."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = dict(columns)
        self._length = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Tensor:
        """Return a column; it shares memory with the rows, until they change."""
        return self._columns[name][: self._length]

    @property
    def nbytes(self) -> int:
        """Return the memory of all rows, without what is reserved for more."""
        return sum(self[name].nbytes for name in self._columns)

    def append(self, columns: Mapping[str, Tensor]) -> None:
        """Add rows at the end."""
        more = len(next(iter(columns.values())))
        wanted = self._length + more
        for name, values in columns.items():
            held = self._columns[name]
            if wanted > len(held):
                grown = torch.empty(
                    max(wanted, 2 * len(held), FIRST_ROWS), *values.shape[1:], dtype=held.dtype
                )
                grown[: self._length] = held[: self._length]
                self._columns[name] = held = grown
            held[self._length : wanted] = values
        self._length = wanted

    def keep(self, index: Tensor) -> None:
        """Keep the rows of these indices, in this order."""
        self._columns = {name: self[name][index] for name in self._columns}
        self._length = len(index)

    def copies(self) -> dict[str, Tensor]:
        """Return a copy of every column."""
        return {name: self[name].clone() for name in self._columns}
