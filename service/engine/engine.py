"""Admission slots, the decoding thread pool, and the model thread behind one interface for the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import Generic, ParamSpec, Protocol, TypeVar

import torch

from service.engine.admission import Admission
from service.engine.batch_queue import BatchQueue
from service.engine.batch_runner import BatchRunner
from service.engine.jobs import Job
from service.engine.model_thread import ModelThread
from service.engine.vision_stage import BatchObserver
from service.errors import ServiceError
from service.language.choice import open_language
from service.language.protocol import LanguageEngine, LanguageObserver
from service.pipeline.models import Models
from service.pipeline.prepare import Inferred, Prepared
from service.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


class EngineObserver(BatchObserver, LanguageObserver, Protocol):
    """Receive gauges, and outcomes of batches and of language servers; service.telemetry.Telemetry."""

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None: ...


class Engine:
    """Decode and answer off the event loop; at most `max_queue` requests wait behind a running batch.

    `on_death` is called in the model thread if that thread must end early.
    """

    def __init__(
        self, settings: Settings, observer: EngineObserver, on_death: Callable[[BaseException], None]
    ) -> None:
        self.admission = Admission(settings.max_queue + settings.max_batch)
        self.language: LanguageEngine | None = None
        self._settings, self._observer = settings, observer
        self._batch_queue = BatchQueue(settings.max_batch)
        # Every thread that uses torch gets an OpenMP team. With more teams than cores, OpenMP threads sleep
        # between operations instead of spinning, and the model's many small ones take half as long again.
        self._decoders = ThreadPoolExecutor(settings.decode_threads, "decode", _use_one_torch_thread)
        self.model_thread = ModelThread(self._batch_queue, settings.num_threads, on_death)
        for name, description, read in (
            ("in_flight", "Requests that hold a slot", lambda: self.admission.in_flight),
            ("queue_depth", "Requests that wait for the model", lambda: self.model_thread.waiting),
            ("running", "Batches that run", lambda: self.model_thread.running),
            ("batch_limit", "Most images of a batch at present", lambda: self._batch_queue.limit),
            (
                "heartbeat_age_seconds",
                "Seconds since the last heartbeat of the model thread",
                lambda: self.model_thread.heartbeat_age_s,
            ),
        ):
            observer.watch(name, description, read)

    async def decode(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run decoding or other preparation in a pool thread."""
        call = _PoolCall(partial(work, *args, **kwargs))
        try:
            return await asyncio.wrap_future(self._decoders.submit(call.run))
        finally:
            call.release()

    async def load(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work other than a request, such as loading, in the model thread."""
        return await asyncio.wrap_future(self.model_thread.run(work, *args, **kwargs))

    def use(self, models: Models) -> None:
        """Answer jobs with these models."""
        self.language = open_language(models.vlm, self._settings, self._observer)
        for name, description, read in (
            ("frame_cache_bytes", "Memory of encoded frames", lambda: models.frames.bytes),
            ("frame_cache_entries", "Encoded frames in memory", lambda: models.frames.entries),
        ):
            self._observer.watch(name, description, read)
        self.model_thread.use(
            BatchRunner(
                models,
                self._batch_queue,
                self._observer,
                self.model_thread.heartbeat,
                self.model_thread.requeue,
                self.admission.served,
                self.language,
            )
        )

    def check_language(self, prepared: Prepared | None = None) -> None:
        """Refuse a question that cannot be answered now. Raises ServiceError, VlmError."""
        if self.language is None:
            return
        if prepared is None or not prepared.params:
            return self.language.check()
        self.language.check(prepared.prompt.shape[1])
        params = prepared.params[0]  # all answers have the same schema
        if params.grammar is None:
            return
        reason = self.language.why_no_grammar(params.top_logprobs is not None)
        if reason is not None:
            field = "logprobs" if reason == "logprobs" else prepared.schema_field
            raise ServiceError("language_unsupported", reason=reason, field=field)

    async def answer(self, job: Job) -> Inferred:
        """Answer a job in one of the next batches. Raises what its models raise, and ServiceError."""
        self.model_thread.submit(job)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            self.model_thread.forget(job)
            raise

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish the current step, fail waiting jobs and stop the threads; return whether they have ended."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        has_ended = self.model_thread.close(timeout_s)
        return (self.language is None or self.language.close(timeout_s)) and has_ended


class _PoolCall(Generic[T]):
    """Hold a function until it runs or is released; the pool keeps cancelled items until their turn."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work

    def run(self) -> T:
        """Run the function. Raises CancelledError after `release`.

        asyncio hands no StopIteration on, so that whoever waits for the function would wait for ever.
        """
        work, self._work = self._work, None
        if work is None:
            raise CancelledError
        try:
            return work()
        except StopIteration as error:
            raise RuntimeError("the function raised StopIteration") from error

    def release(self) -> None:
        """Drop the function and its arguments, so that their memory is freed."""
        self._work = None


def _use_one_torch_thread() -> None:
    """Set one torch thread; reading the number back makes torch apply it now."""
    torch.set_num_threads(1)
    torch.get_num_threads()
