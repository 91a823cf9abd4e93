"""The frames of an episode that are needed still: pose and time by number."""

from __future__ import annotations

import torch
from torch import Tensor

from tosa.frames.rows import Rows

_FEWEST = 64
"""Fewer frames are not worth looking through for those that can be forgotten."""


class FrameTable:
    """Remember the pose and time of frames until nothing is held of them; numbers count all that came."""

    def __init__(self) -> None:
        self._came = 0
        self._rows = Rows(
            {
                "number": torch.zeros(0, dtype=torch.int64),  # ascending
                "pose": torch.zeros(0, 4, 4, dtype=torch.float64),  # NaN: none
                "time": torch.zeros(0, dtype=torch.float64),  # NaN: none
            }
        )
        self._latest = torch.nan
        self._crowded = _FEWEST

    def __len__(self) -> int:
        """Return how many frames came."""
        return self._came

    @property
    def remembered(self) -> int:
        """Return how many frames are remembered."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Return the memory that is used."""
        return self._rows.nbytes

    @property
    def latest(self) -> float:
        """Return the latest time of all frames that came, NaN if none had one."""
        return self._latest

    @property
    def is_crowded(self) -> bool:
        """Return whether twice as many frames are remembered as were needed when that was last looked at."""
        return len(self._rows) > self._crowded

    @property
    def numbers(self) -> Tensor:
        """Return the numbers of remembered frames, ascending: int64 [n]."""
        return self._rows["number"]

    def append(self, pose: Tensor | None, time: float) -> int:
        """Add the next frame and return its number. pose [4, 4]. time: NaN if it is not known."""
        number, self._came = self._came, self._came + 1
        placed = torch.full((4, 4), torch.nan, dtype=torch.float64) if pose is None else pose
        self._rows.append(
            {
                "number": torch.tensor([number]),
                "pose": placed[None],
                "time": torch.tensor([time], dtype=torch.float64),
            }
        )
        self._latest = max(time, self._latest) if self._latest == self._latest else time
        return number

    def poses(self, numbers: Tensor) -> Tensor:
        """Return the poses of remembered frames [n]: [n, 4, 4], NaN without one."""
        return self._rows["pose"][self._slots(numbers)]

    def times(self, numbers: Tensor) -> Tensor:
        """Return the times of remembered frames [n] in seconds: float64 [n], NaN without one."""
        return self._rows["time"][self._slots(numbers)]

    def move(self, number: int, pose: Tensor) -> None:
        """Give a frame a new pose [4, 4], if it is remembered."""
        slot = int(torch.searchsorted(self._rows["number"], number))
        if slot < len(self._rows) and self._rows["number"][slot] == number:
            self._rows["pose"][slot] = pose

    def forget_all_but(self, numbers: Tensor) -> None:
        """Forget all frames but these."""
        self._rows.keep(torch.isin(self._rows["number"], numbers).nonzero().flatten())
        self._crowded = max(_FEWEST, 2 * len(self._rows))

    def state(self) -> dict[str, Tensor]:
        """Return all that is remembered."""
        latest = torch.tensor(self._latest, dtype=torch.float64)
        return {**self._rows.copies(), "came": torch.tensor(self._came), "latest": latest}

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> FrameTable:
        """Return what `state` was taken of."""
        table = cls()
        table._came, table._latest = int(state["came"]), float(state["latest"])
        table._rows.append({name: state[name] for name in ("number", "pose", "time")})
        table._crowded = max(_FEWEST, 2 * len(table._rows))
        return table

    def _slots(self, numbers: Tensor) -> Tensor:
        return torch.searchsorted(self._rows["number"], numbers)
