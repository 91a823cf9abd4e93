"""When a request is tried again: what is temporary, as often and as long as a policy and a deadline allow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tosa_vqa_client.errors import BadResponse, ClientError, ConnectionFailed, DeadlineExceeded, ServiceError
from tosa_vqa_client.progress import OnProgress, Progress

_TEMPORARY = (429, 502, 503)
_FIRST_PAUSE_S = 0.25
"""Pause before the second try where the service did not name one; it doubles."""
_TOLD_SHARE = 0.95
"""Part of the time left that the service is given, so that its own answer or refusal arrives in time."""
_MOST_TOLD_S = 86_400.0


@dataclass(frozen=True)
class Retries:
    """Bound the tries of one request. attempts: in all. longest_wait_s: before a single one of them.

    Tried again are 429, 502 and 503, after the seconds of Retry-After, and lost connections. Questions change
    nothing in the service, so asking again is safe; a stream that has begun is not asked again. What changes
    an episode is sent again only where the service itself refused it.
    """

    attempts: int = 4
    longest_wait_s: float = 30.0


class Attempts:
    """Count the tries of one request against its policy and its deadline."""

    def __init__(
        self,
        policy: Retries,
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
        clock: Callable[[], float] = time.monotonic,
        repeats: bool = True,
    ) -> None:
        self._policy, self._timeout_s, self._on_progress, self._clock = policy, timeout_s, on_progress, clock
        self._repeats = repeats
        self._end_s = None if timeout_s is None else clock() + timeout_s
        self.number = 1

    def left_s(self) -> float | None:
        """Return the seconds until the deadline, None without one. Raises DeadlineExceeded."""
        if self._end_s is None or self._timeout_s is None:
            return None
        left_s = self._end_s - self._clock()
        if left_s <= 0:
            raise DeadlineExceeded(self._timeout_s)
        return left_s

    def told_s(self) -> float | None:
        """Return the timeout_s for the service, so that it does not work on when nobody waits."""
        left_s = self.left_s()
        return None if left_s is None else min(left_s * _TOLD_SHARE, _MOST_TOLD_S)

    def late(self) -> DeadlineExceeded:
        """Return the error of a call that ran out of time."""
        return DeadlineExceeded(self._timeout_s or 0.0)

    def pause_s(self, error: ClientError) -> float:
        """Return the seconds to wait before the next try. Raises the error if there is none."""
        wait_s = _wait_s(error, self.number)
        if not self._repeats and not isinstance(error, ServiceError):
            raise error
        if wait_s is None or wait_s > self._policy.longest_wait_s or self.number >= self._policy.attempts:
            raise error
        if self._end_s is not None and self._clock() + wait_s >= self._end_s:
            raise error
        self.number += 1
        self.report(Progress("retrying", self.number, wait_s=wait_s, reason=str(error)))
        return wait_s

    def report(self, progress: Progress) -> None:
        """Tell the caller how far the request is."""
        if self._on_progress is not None:
            self._on_progress(progress)

    @property
    def is_watched(self) -> bool:
        """Return whether anybody wants to know how far the request is."""
        return self._on_progress is not None


def _wait_s(error: ClientError, attempt: int) -> float | None:
    """Return how long to wait after an error, None if it stays."""
    pause_s = _FIRST_PAUSE_S * 2.0 ** (attempt - 1)
    match error:
        case ServiceError() | BadResponse() if error.status in _TEMPORARY:
            return pause_s if error.retry_after_s is None else error.retry_after_s
        case ConnectionFailed():
            return pause_s
        case _:
            return None
