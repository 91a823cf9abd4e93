"""Limit the requests that the model works for, each from when its body has arrived. Event loop only."""

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

    def check(self) -> None:
        """Refuse a request that has just begun if no slot is free: its body would come in vain.

        What passes holds no slot yet, and may acquire one after `close`. Raises ServiceError overloaded or
        draining.
        """
        if self._is_closed:
            raise ServiceError("draining", retry_after_s=1)
        self._require(1)

    @contextmanager
    def acquire(self, number: int = 1) -> Iterator[None]:
        """Hold `number` slots, all or none. Raises ServiceError overloaded."""
        self._require(number)
        self.in_flight += number
        try:
            yield
        finally:
            self.in_flight -= number

    def close(self) -> None:
        """Refuse every request that begins from now on."""
        self._is_closed = True

    def served(self, requests: int, seconds: float) -> None:
        """Update the mean seconds per request from a batch; any thread."""
        self._service_s += 0.2 * (seconds / requests - self._service_s)

    def retry_after_s(self) -> int:
        """Estimate the seconds until the requests in flight are done, with jitter to spread retries."""
        return max(1, math.ceil(self.in_flight * self._service_s * random.uniform(1.0, 1.5)))

    def _require(self, number: int) -> None:
        if self.in_flight + number > self.slots:
            raise ServiceError("overloaded", retry_after_s=self.retry_after_s())
