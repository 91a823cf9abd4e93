"""Answer one question in the calling thread, the same way as a batch: for the command line and warming up."""

from __future__ import annotations

from service.engine.batch_queue import Batcher
from service.engine.batch_runner import BatchRunner
from service.engine.jobs import Job
from service.pipeline.models import Models
from service.pipeline.prepare import Inferred, Prepared
from service.timing import StageTimer


class Unwatched:
    """Tell nobody."""

    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None:
        """Hear nothing of it."""

    def frames_looked_up(self, hits: int, misses: int) -> None:
        """Hear nothing of it."""


def answer_here(models: Models, prepared: Prepared, timer: StageTimer | None = None) -> Inferred:
    """Answer a prepared question now. Raises what its models raise, and ApiError."""
    job = Job(prepared, timer or StageTimer())
    for _ in BatchRunner(models, Batcher(len(prepared.frames)), Unwatched(), lambda: None).run([job]):
        pass
    return job.answer.result()
