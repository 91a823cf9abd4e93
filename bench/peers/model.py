"""The model behind every compared server: the service's own preparation and engine, without its server.

The adapters beside this file add HTTP, threads and queues, and do not change the model. Torch's threads come
from OMP_NUM_THREADS, which the runner sets for all.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.batch_queue import BatchQueue
from service.engine.batch_runner import BatchRunner, NullObserver
from service.engine.jobs import Job
from service.engine.warmup import warm_up
from service.pipeline.models import load_models
from service.pipeline.prepare import Prepared, prepare
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer

MAX_BATCH = Settings.model_fields["max_batch"].default


class Model:
    """One loaded and warm model. Only `prepare` may run in several threads at once."""

    def __init__(self) -> None:
        self.settings = Settings()
        self._models = load_models(self.settings)
        warm_up(self._models, self.settings)
        self._runner = BatchRunner(self._models, BatchQueue(MAX_BATCH), NullObserver(), lambda: None)

    def prepare(self, image: bytes, depth: bytes, question: str, method: str, keep_ratio: float) -> Prepared:
        """Decode and preprocess one question; frames are not cached."""
        fields = VqaFields(question=question, method=method, keep_ratio=keep_ratio, cache=False)
        request = VqaRequest(fields, (image,), (depth,))
        return prepare(self._models, request, self.settings, StageTimer())

    def answer(self, prepared: Prepared) -> str:
        """Answer one question."""
        return self.answers([prepared])[0]

    def answers(self, batch: Sequence[Prepared]) -> list[str]:
        """Answer up to MAX_BATCH questions of one plan together."""
        jobs = [Job(prepared, StageTimer()) for prepared in batch]
        for _ in self._runner.run(jobs):
            pass
        return [job.answer.result().text for job in jobs]
