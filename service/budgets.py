"""Budgets of API keys: requests in flight, and units per minute.

A bucket is stored as one number, the time at which it will be full again, so nothing runs to refill it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from service.errors import ServiceError
from service.settings import Settings


@dataclass
class Costs:
    """Count pixels decoded, of images and depth, and tokens read or generated.

    Written by the thread that works on the question, read by any.
    """

    pixels: int = 0
    tokens: int = 0

    @property
    def units(self) -> float:
        """Return the budget units: one per megapixel and one per 100 tokens."""
        return self.pixels / 1_000_000 + self.tokens / 100


SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


class Budgets:
    """Keep the budgets of all keys; thread-safe. The key None, for requests without one, has no budget.

    A bucket holds the units of one minute. Charges come after the fact and may lead into debt, and a key in
    debt is let in again once its debt is paid by time. clock: nanoseconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._max_in_flight = settings.key_max_in_flight
        self._units_per_minute = settings.key_units_per_minute
        self._clock = clock
        self._lock = Lock()
        self._in_flight: Counter[str] = Counter()
        self._full_at_ns: dict[str, int] = {}

    @contextmanager
    def acquire(self, key: str | None, number: int = 1) -> Iterator[None]:
        """Hold `number` slots of the key. Raises ServiceError (budget_exceeded) with the time to wait."""
        if key is None:
            yield
            return
        self._enter(key, number)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[key] -= number

    def most_slots(self, key: str | None, number: int) -> int:
        """Return `number`, or the slots of the key if these are fewer."""
        return number if key is None or self._max_in_flight is None else min(number, self._max_in_flight)

    def charge(self, key: str | None, used: float) -> None:
        """Charge `used` >= 0 units to the key's bucket, which may go negative. Raises ValueError."""
        if not 0 <= used < float("inf"):
            raise ValueError("a charge is a number of units, at least 0")
        if key is None or self._units_per_minute is None:
            return
        cost_ns = round(used / self._units_per_minute * MINUTE_NS)
        with self._lock:
            now = self._clock()
            self._full_at_ns[key] = max(now, self._full_at_ns.get(key, now)) + cost_ns

    def in_flight(self, key: str) -> int:
        """Return the number of requests of the key in flight."""
        with self._lock:
            return self._in_flight[key]

    def left(self, key: str) -> float | None:
        """Return the units in the key's bucket, below 0 in debt, None where there is no such budget."""
        if self._units_per_minute is None:
            return None
        with self._lock:
            return -self._debt_ns(key) / MINUTE_NS * self._units_per_minute

    def _enter(self, key: str, number: int) -> None:
        with self._lock:
            debt_ns = 0 if self._units_per_minute is None else self._debt_ns(key)
            if debt_ns > 0:
                raise ServiceError("budget_exceeded", retry_after_s=-(-debt_ns // SECOND_NS))
            if self._max_in_flight is not None and self._in_flight[key] + number > self._max_in_flight:
                raise ServiceError(
                    "budget_exceeded", reason="at_once", limit=self._max_in_flight, retry_after_s=1
                )
            self._in_flight[key] += number

    def _debt_ns(self, key: str) -> int:
        """Return how long the bucket will be below empty; negative: how much of a minute it still holds."""
        now = self._clock()
        return max(now, self._full_at_ns.get(key, now)) - now - MINUTE_NS
