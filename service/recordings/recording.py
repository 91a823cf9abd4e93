"""One recorded frame, a walk of many, and which of them are taken."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class WalkError(ValueError):
    """The recording cannot be read as a walk; the text says which file, and what to do."""


@dataclass(frozen=True)
class RecordedFrame:
    """Hold one frame. fields: pose, timestamp and intrinsics, as an episode takes them, where they are known.

    image, depth: the bytes of files; depth None: there is none.
    """

    name: str
    image: bytes
    depth: bytes | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Walk:
    """Hold a recorded walk, whose files are read when their turn comes.

    number: frames that were recorded. fields: what its format says of all frames, such as depth_scale.
    read: returns the frames of these numbers, in order. notes: what a person should know.
    """

    source: Path
    number: int
    fields: Mapping[str, Any]
    read: Callable[[Sequence[int]], Iterator[RecordedFrame]]
    notes: tuple[str, ...] = field(default=())

    def frames(self, most: int) -> Iterator[RecordedFrame]:
        """Yield at most so many frames, spread evenly over the walk. Raises WalkError, OSError."""
        yield from self.read(spread(self.number, most))


def spread(number: int, most: int) -> list[int]:
    """Return at most `most` of 0 to number - 1, evenly spread, the first and the last among them."""
    if number <= most:
        return list(range(number))
    if most == 1:
        return [0]
    return [round(at * (number - 1) / (most - 1)) for at in range(most)]


def nearest(times: Sequence[float], time: float, tolerance_s: float) -> int | None:
    """Return the index of the nearest of ascending times, the first of equals; None if none is near."""
    right = bisect_left(times, time)
    near = [at for at in (right - 1, right) if 0 <= at < len(times)]
    best = min(near, key=lambda at: abs(times[at] - time), default=None)
    return best if best is not None and abs(times[best] - time) <= tolerance_s else None
