"""Answer with the service's engine in this process; `over_http.py` asks a running server instead.

Both keep several questions in flight, so that batches fill, and yield answers in the order they complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evals.runners.asking import (
    Answer,
    Answerer,
    RunError,
    Spec,
    answered,
    concurrently,
    fields_of,
    files_of,
    sends_depth,
)
from evals.runners.items import DatasetError, Item
from evals.runners.over_http import HttpAnswerer
from service.engine.engine import Engine
from service.engine.jobs import Job
from service.episodes.asking import prepare_answer
from service.episodes.episode import episode_of
from service.errors.translation import to_service_error
from service.pipeline.models import load_models
from service.pipeline.prepare import prepare
from service.pipeline.response import model_used, respond
from service.request.schemas import VqaFields, VqaRequest
from service.request.validation import check_counts, check_fields
from service.settings import Settings
from service.timing import StageTimer
from vlm import Visual
from vlm.dtypes import short

__all__ = ["Answer", "Answerer", "EngineAnswerer", "HttpAnswerer", "RunError", "Spec"]

log = logging.getLogger("tosa_vqa")

LIMITS: Mapping[str, Any] = {
    "max_images": 256,
    "max_question_chars": 100_000,
    "max_answer_tokens": 4096,
    "max_image_px": 100_000_000,
    "episode_tokens": 262_144,
}
"""Limits that protect a server, lifted for evaluations."""


class EngineAnswerer:
    """Answer in this process, with the pipeline, the batches and the settings of the server.

    `more` are settings of the server: device, dtype, depth_model and so on. Close it at the end.
    Raises VlmError and EstimatorError for a model that cannot be loaded.
    """

    def __init__(self, model: str, spec: Spec, batch_size: int = 8, **more: Any) -> None:
        self.name, self._spec = "engine", dict(spec)
        self._process = Settings(model=model, max_batch=batch_size, **{**LIMITS, **more})
        self._engine = Engine(self._process, _NoTelemetry(), lambda error: None)
        try:
            self._models = self._engine.model_thread.run(load_models, self._process).result()
        except BaseException:
            self.close()
            raise
        self._engine.use(self._models)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what answers depend on."""
        estimation = self._models.estimation
        known = None if estimation is None else estimation.estimator
        return {
            "model": model_used(self._models.vlm).model_dump(),
            "dtype": short(self._models.vlm.dtype),
            "depth_model": None if known is None else {"id": known.id, "revision": known.revision},
            "spec": self._spec,
        }

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Yield the answers, with twice as many items in flight as a batch holds."""
        return concurrently(self._ask, items, 2 * self._process.max_batch)

    def close(self) -> None:
        """Stop the threads."""
        self._engine.close()

    async def _ask(self, item: Item) -> Answer:
        timer = StageTimer()
        try:
            job = await self._engine.decode(self._job, item, timer)
            inferred = await self._engine.answer(job)
            if job.prepared.geometry:  # its frames were encoded, and merge before the question is asked
                job = await self._engine.decode(self._merged, item, job, inferred.visuals)
                inferred = await self._engine.answer(job)
        except DatasetError:
            raise
        except Exception as error:
            return _refused(item, error)
        response = respond(self._models.vlm, job.prepared, inferred, timer, item.id)
        return answered(item, response.model_dump(mode="json", exclude_unset=True))

    def _job(self, item: Item, timer: StageTimer) -> Job:
        request = VqaRequest(self._fields(item), *files_of(item, self._spec))
        check_counts(request, self._process)
        timer.skip()
        return Job(prepare(self._models, request, self._process, timer), timer)

    def _merged(self, item: Item, encoding: Job, visuals: Sequence[Visual]) -> Job:
        """Merge the frames of an item as the service does, and prepare its question."""
        vlm, fields = self._models.vlm, self._fields(item)
        episode = episode_of(
            fields,
            encoding.prepared.geometry,
            visuals,
            vlm.family.separator_rows,
            sends_depth(item, self._spec),
            self._process.episode_tokens,
        )
        prepared = prepare_answer(vlm, VqaRequest(fields, (), ()), episode, self._process, None)
        job = Job(prepared, encoding.timer)
        job.ran_encoder = encoding.ran_encoder
        return job

    def _fields(self, item: Item) -> VqaFields:
        return check_fields(fields_of(item, self._spec), self._process, strict=True)


class _NoTelemetry:
    """Telemetry without exporters."""

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None: ...
    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None: ...
    def frames_looked_up(self, hits: int, misses: int) -> None: ...
    def language_ended(self, outcome: str, prompt_tokens: int, cached_tokens: int | None) -> None: ...


def _refused(item: Item, error: Exception) -> Answer:
    refusal = to_service_error(error)
    if refusal.code == "not_ready":
        raise RunError("the engine has stopped, its log says why; run the same command again to go on")
    if refusal.code == "internal":
        log.error("question %s failed", item.id, exc_info=error)
    return Answer(item.id, "", refusal.body(item.id))
