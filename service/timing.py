"""Stage timings of one request; every moment belongs to one stage, so the stages add up to the total."""

from collections.abc import Callable
from time import perf_counter

from pydantic import BaseModel, ConfigDict, Field


class TimingsMs(BaseModel):
    """Hold milliseconds by stage, null for a stage that did not run; the stages add up to the total."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    receive: float | None = Field(
        description="Receiving the request, from the first byte of its head to the last of its body; "
        "null in a comparison, which is received once for all its settings.",
        examples=[1.2],
    )
    queue: float | None = Field(description="Waiting for a thread or for the model.", examples=[0.4])
    decode: float | None = Field(description="Reading image and depth files.", examples=[2.1])
    preprocess: float | None = Field(description="Planning, resizing, writing the prompt.", examples=[1.9])
    estimate: float | None = Field(description="Estimating depth.", examples=[None, 35.0])
    depth: float | None = Field(
        description="Checking depth against the picture, and making spatial tokens of it.", examples=[0.8]
    )
    vision: float | None = Field(description="Encoding the images, merging included.", examples=[61.0])
    language_queue: float | None = Field(
        default=None,
        description="Only with language servers: sending the prompt and waiting there. The queue of a server "
        "that does not measure it is in prefill.",
        examples=[3.1],
    )
    prefill: float | None = Field(description="Reading the prompt, up to its first token.", examples=[9.7])
    generate: float | None = Field(description="Writing the answer.", examples=[2.2])
    total: float = Field(
        description="From the first byte of the request's head to the answer.", examples=[79.3]
    )

    def stages(self) -> dict[str, float]:
        """Return the milliseconds of every stage that ran, in order, without the total."""
        spent = ((stage, getattr(self, stage)) for stage in STAGES)
        return {stage: ms for stage, ms in spent if ms is not None}


STAGES = tuple(name for name in TimingsMs.model_fields if name != "total")
RARE = ("language_queue",)
"""Left out of a response, and not null there, where they did not run."""


class StageTimer:
    """Time the stages of one request; it moves between threads, but only one uses it at a time.

    began_s: when its first stage began, in seconds of `clock`; None: now.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter, began_s: float | None = None) -> None:
        self._clock = clock
        self._last = clock() if began_s is None else began_s
        self._spent_s: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Add the time since the previous mark to `stage`."""
        assert stage in STAGES
        now = self._clock()
        self._spent_s[stage] = self._spent_s.get(stage, 0.0) + now - self._last
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Move time that was added to one stage to another, as far as it has so much."""
        moved = max(0.0, min(seconds, self._spent_s.get(source, 0.0)))
        if moved:
            self._spent_s[source] -= moved
            self._spent_s[target] = self._spent_s.get(target, 0.0) + moved

    def skip(self) -> None:
        """Discard the time since the previous mark."""
        self._last = self._clock()

    def timings_ms(self) -> TimingsMs:
        """Return the time of each stage so far, and their sum."""
        spent_s = dict(self._spent_s)  # of a request that ended early, another thread may still be marking
        by_stage = {
            stage: _ms(spent_s.get(stage)) for stage in STAGES if stage in spent_s or stage not in RARE
        }
        return TimingsMs.model_validate({**by_stage, "total": _ms(sum(spent_s.values()))})


def server_timing(timings: TimingsMs) -> str:
    """Return the value of a Server-Timing header (W3C): the stages that ran, and the total."""
    spent = {**timings.stages(), "total": timings.total}
    return ", ".join(f"{stage};dur={ms}" for stage, ms in spent.items())


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
