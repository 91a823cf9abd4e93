"""Where the time of one request went: every moment belongs to one stage, so they add up to the total."""

from collections.abc import Callable
from time import perf_counter

STAGES = ("receive", "queue", "decode", "preprocess", "estimate", "depth", "vision", "prefill", "generate")

FIRST_BYTE = "first_byte_s"
"""Where in the state of its scope a request finds when its first byte arrived, in seconds of `perf_counter`.

Of a pipelined request: when the answer before it was sent. Servers other than ours do not say.
"""


class StageTimer:
    """Clock one request; handed from thread to thread, never used by two at once.

    began_s: when its first stage began, in seconds of `clock`; None: now.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter, began_s: float | None = None) -> None:
        self._clock = clock
        self._last = clock() if began_s is None else began_s
        self._spent_s: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Give the time since the previous mark to `stage`; several marks of one stage add up."""
        assert stage in STAGES
        now = self._clock()
        self._spent_s[stage] = self._spent_s.get(stage, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Give the time since the previous mark to no stage: it was spent on no request."""
        self._last = self._clock()

    def timings_ms(self) -> dict[str, float | None]:
        """Return milliseconds by stage, None for a stage that did not run, and their sum as `total`."""
        spent_s = dict(self._spent_s)  # of a request that ended early, another thread may still be marking
        return {**{stage: _ms(spent_s.get(stage)) for stage in STAGES}, "total": _ms(sum(spent_s.values()))}


def server_timing(timings_ms: dict[str, float | None]) -> str:
    """Return the value of a Server-Timing header (W3C) for the stages that ran."""
    return ", ".join(f"{stage};dur={ms}" for stage, ms in timings_ms.items() if ms is not None)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
