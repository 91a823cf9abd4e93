"""Which jobs run together: those of one group, the longest waiting first. A plain data structure.

Not thread-safe; the owner holds a lock. It never waits for a batch to fill: while one batch runs, the
next fills by itself, and a lone request is never held up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from service.engine.jobs import Job

QUARANTINE_S = 600.0
MAX_QUARANTINED = 1000
SUCCESSES_TO_GROW = 32
"""Successful batches before the limit is doubled again after memory ran out."""


class BatchQueue:
    """Queue jobs and hand them out in batches of at most `limit` images, and of as many answers.

    A larger job goes alone.
    """

    def __init__(self, max_images: int, clock: Callable[[], float] = monotonic) -> None:
        self.limit = self._max_images = max_images
        self._clock = clock
        self._waiting: deque[Job] = deque()
        self._successes = 0
        self._quarantined: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Append a job."""
        job.waits = True
        self._waiting.append(job)

    def forget(self, job: Job) -> None:
        """Remove a job if it still waits."""
        with suppress(ValueError):
            self._waiting.remove(job)

    def take(self) -> list[Job]:
        """Take the next batch, [] if nothing waits; cancelled jobs are dropped."""
        self._waiting = deque(job for job in self._waiting if job.is_open)
        if not self._waiting:
            return []
        first = self._waiting[0]
        batch, weight = [first], first.weight
        if not self.is_quarantined(first):
            for job in list(self._waiting)[1:]:
                if job.group != first.group or self.is_quarantined(job):
                    continue
                if weight + job.weight > self.limit:
                    break
                batch.append(job)
                weight += job.weight
        taken = set(map(id, batch))
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return batch

    def clear(self) -> list[Job]:
        """Remove and return every waiting job."""
        jobs, self._waiting = list(self._waiting), deque()
        return jobs

    def shrink(self) -> None:
        """Halve the batch limit after running out of memory."""
        self.limit = max(1, self.limit // 2)
        self._successes = 0

    def on_success(self) -> None:
        """Count a successful batch; after SUCCESSES_TO_GROW of them the limit doubles."""
        self._successes += 1
        if self._successes >= SUCCESSES_TO_GROW:
            self.limit, self._successes = min(self._max_images, self.limit * 2), 0

    def quarantine(self, job: Job) -> None:
        """Run the same input alone for QUARANTINE_S seconds, because it made a batch fail."""
        self._quarantined[job.prepared.digest] = self._clock() + QUARANTINE_S
        self._quarantined.move_to_end(job.prepared.digest)
        while len(self._quarantined) > MAX_QUARANTINED:
            self._quarantined.popitem(last=False)

    def is_quarantined(self, job: Job) -> bool:
        """Return whether this input must run alone."""
        if not self._quarantined:
            return False
        until = self._quarantined.get(job.prepared.digest)
        return until is not None and self._clock() < until
