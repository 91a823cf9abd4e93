"""Bodies that are still arriving: how many there may be, and how many bytes they may take together.

They hold no slot of the model. Where they are too many, the one that has been arriving longest is refused: a
body that is sent as fast as the network goes is never the oldest among those that stall. Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import ServiceError


class Arrivals:
    """Count bodies in arrival, and their bytes; `begun`: how many there have ever been."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._arriving: dict[Arrival, None] = {}  # the oldest first
        self.bytes = 0
        self.begun = 0

    def __len__(self) -> int:
        return len(self._arriving)

    @contextmanager
    def enter(self, refuse: Callable[[], None]) -> Iterator[Arrival]:
        """Count one body until it has arrived; `refuse` is called at most once, to end its arrival."""
        arrival = Arrival(self, refuse)
        self._arriving[arrival] = None
        self.begun += 1
        self._make_room(arrival)
        try:
            yield arrival
        finally:
            self.leave(arrival)

    def add(self, arrival: Arrival, size: int) -> None:
        """Count bytes of a body. Raises ServiceError (overloaded) if it has been refused."""
        if arrival not in self._arriving:
            raise ServiceError("overloaded", retry_after_s=1)
        arrival.bytes += size
        self.bytes += size
        self._make_room(arrival)

    def leave(self, arrival: Arrival) -> None:
        """Stop counting a body, if it was counted."""
        if arrival in self._arriving:
            del self._arriving[arrival]
            self.bytes -= arrival.bytes

    def _make_room(self, newest: Arrival) -> None:
        while len(self._arriving) > self._most or self.bytes > self._most_bytes:
            oldest = next(iter(self._arriving))
            self.leave(oldest)
            if oldest is newest:
                raise ServiceError("overloaded", retry_after_s=1)
            oldest.refuse()


class Arrival:
    """One body that is arriving."""

    def __init__(self, arrivals: Arrivals, refuse: Callable[[], None]) -> None:
        self._arrivals = arrivals
        self.refuse = refuse
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that have arrived. Raises ServiceError (overloaded) where there is no room for them."""
        self._arrivals.add(self, size)
