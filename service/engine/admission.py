"""How many requests may be inside, counted from before their bodies are read. Event loop only.

Knows no bodies: whoever holds a place decides what to do with it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError


class Admission:
    """Hand out a fixed number of places; full and closed are answers, not waits."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.in_flight = 0
        self._is_closed = False
        self._service_s = 1.0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place for a whole request. Raises ServiceError overloaded or draining."""
        with self.acquire(1):
            yield

    @contextmanager
    def acquire(self, number: int) -> Iterator[None]:
        """Hold several places; all or none. Raises as `admit`."""
        if self._is_closed:
            raise ServiceError("draining", retry_after_s=1)
        if self.in_flight + number > self.slots:
            raise ServiceError("overloaded", retry_after_s=self.retry_after_s())
        self.in_flight += number
        try:
            yield
        finally:
            self.in_flight -= number

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closed = True

    def served(self, requests: int, seconds: float) -> None:
        """Learn what one request costs, from a batch of them; any thread may tell."""
        self._service_s += 0.2 * (seconds / requests - self._service_s)

    def retry_after_s(self) -> int:
        """Estimate when those inside are done; a little chance spreads those who come back."""
        return max(1, math.ceil(self.in_flight * self._service_s * random.uniform(1.0, 1.5)))
