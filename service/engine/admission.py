"""Limit the requests in flight, counted from before their bodies are read. Event loop only."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError


class Admission:
    """Hand out a fixed number of slots; a full or closed admission refuses instead of waiting."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.in_flight = 0
        self._is_closed = False
        self._service_s = 1.0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one slot for a whole request. Raises ServiceError overloaded or draining."""
        with self.acquire(1):
            yield

    @contextmanager
    def acquire(self, number: int) -> Iterator[None]:
        """Hold `number` slots, all or none. Raises as `admit`."""
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
        """Refuse every further request."""
        self._is_closed = True

    def served(self, requests: int, seconds: float) -> None:
        """Update the mean seconds per request from a batch; any thread."""
        self._service_s += 0.2 * (seconds / requests - self._service_s)

    def retry_after_s(self) -> int:
        """Estimate the seconds until the requests in flight are done, with jitter to spread retries."""
        return max(1, math.ceil(self.in_flight * self._service_s * random.uniform(1.0, 1.5)))
