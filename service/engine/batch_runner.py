"""Answer one batch in small steps, so that batches can take turns.

A job fails alone: a batch that fails is halved until the failing job is found. Model thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from time import perf_counter
from typing import Protocol

import torch

from depth.estimate import EstimatorError
from service.engine.answer_stream import JobAnswers
from service.engine.batch_queue import BatchQueue
from service.engine.jobs import Job, RequestCancelled
from service.engine.vision_stage import BatchObserver, EncodedJob, encode_frames
from service.errors import ServiceError
from service.language.in_process import TorchLanguage
from service.language.protocol import LanguageEngine, Reading
from service.pipeline.depth_summary import Understood, of_estimate, used
from service.pipeline.merge_trace import trace_merging
from service.pipeline.models import Models
from service.pipeline.prepare import Inferred, Prepared, Written
from service.pipeline.response_models import DepthUsed
from service.timing import StageTimer
from vlm import VlmError
from vlm.attention import visual_attention

log = logging.getLogger("tosa_vqa")


class FatalDeviceError(Exception):
    """The device can no longer be trusted; this process must end."""


class Limits(Protocol):
    """Receive the outcome of batches to size later ones; service.engine.batch_queue.BatchQueue."""

    limit: int

    def shrink(self) -> None: ...
    def on_success(self) -> None: ...
    def quarantine(self, job: Job) -> None: ...


class BatchRunner:
    """Answer batches of jobs with the models; `heartbeat` is called after every piece of work.

    `requeue` takes back a job that ran out of memory, and returns False if no other batch holds memory.
    `served` is called with a number of jobs and the seconds they took together: after every batch that
    succeeded, or after every answer where the language engine works beyond the batch. language: that of this
    process if not given.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        observer: BatchObserver,
        heartbeat: Callable[[], None],
        requeue: Callable[[Job], bool] = lambda _: False,
        served: Callable[[int, float], None] = lambda _jobs, _seconds: None,
        language: LanguageEngine | None = None,
    ) -> None:
        self._models, self._limits, self._observer = models, limits, observer
        self._heartbeat, self._requeue, self._served = heartbeat, requeue, served
        self._language = TorchLanguage(models.vlm) if language is None else language

    def run(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Answer jobs of one group; yields between the steps of the language engine.

        Every active job gets its answer or its error: at the end or, from language servers, later. Raises
        only FatalDeviceError.
        """
        batches = [list(jobs)]  # the next one last
        while batches:
            batch = [job for job in batches.pop() if job.is_open]
            if batch and not (yield from self._run_batch(batch)):
                middle = (len(batch) + 1) // 2
                batches += [batch[middle:], batch[:middle]]

    def _run_batch(self, jobs: Sequence[Job]) -> Generator[None, None, bool]:
        """Run a batch once; return False if its open jobs have to run again."""
        start, failure = perf_counter(), None
        try:
            yield from self._answer(jobs)
        except RequestCancelled:
            return True
        except Exception as error:
            failure = error.with_traceback(None)  # whose frames would keep every tensor
        outcome = "ok" if failure is None else self._handle_failure(jobs, failure)
        images = sum(job.images for job in jobs)
        method = jobs[0].prepared.plan.method
        seconds = perf_counter() - start
        self._observer.batch_ended(method, len(jobs), images, seconds, outcome)
        if failure is None:
            if self._language.is_here:
                self._served(len(jobs), seconds)
            self._limits.on_success()
            return True
        if len(jobs) == 1 and jobs[0].waits:  # taken back
            return True
        for job in jobs:
            job.waits = True
        return False

    def _answer(self, jobs: Sequence[Job]) -> Iterator[None]:
        for job in jobs:
            job.start()
        if jobs[0].traces:
            return self._trace(jobs[0])
        encoded = encode_frames(
            self._models, jobs, self._limits.limit, self._observer, lambda: self._between(jobs)
        )
        for job in jobs:
            if job not in encoded:
                job.fail(ServiceError("numerical_error"))
        for job in [one for one in encoded if not one.choices]:  # its frames merge before it is asked about
            own = encoded.pop(job)
            depth = self._depth(job, own.understood, own.is_remembered)
            job.succeed(Inferred((), 0, len(jobs), own.cached, depth, own.visuals))
        jobs = list(encoded)
        if not jobs:
            return
        for _ in self._language.begin([self._reading(job, encoded[job], len(jobs)) for job in jobs]):
            self._heartbeat()
            yield
        self._heartbeat()

    def _trace(self, job: Job) -> None:
        """Run the encoder alone; a job that traces is alone in its batch."""
        trace = trace_merging(self._models, job.prepared, lambda: self._between([job]))
        job.costs.tokens = job.prepared.plan.cells_in * job.prepared.views
        job.timer.mark("vision")
        estimate = () if trace.depth is None else (of_estimate(trace.depth),)
        depth = self._depth(job, estimate, trace.is_remembered)
        job.succeed(Inferred((), prompt_tokens=0, batch_size=1, cached=False, depth=depth, trace=trace))

    def _reading(self, job: Job, encoded: EncodedJob, batch_size: int) -> Reading:
        start = perf_counter()

        def finish(whole: tuple[Written, ...], prompt_tokens: int) -> None:
            attention = self._attention(job, encoded, whole[0])
            job.timer.mark("generate")
            if not self._language.is_here:
                self._served(max(1, self._language.running), perf_counter() - start)
            job.succeed(
                Inferred(
                    answers=whole,
                    prompt_tokens=prompt_tokens,
                    batch_size=batch_size,
                    cached=encoded.cached,
                    depth=self._depth(job, encoded.understood, encoded.is_remembered),
                    attention=attention,
                )
            )

        prepared = job.prepared
        return Reading(
            prompt=prepared.prompt,
            visuals=encoded.visuals,
            params=prepared.params,
            listener=JobAnswers(job, self._models.vlm, finish),
            affinity=prepared.frames[0].key,
            salt=prepared.salt,
        )

    def _attention(self, job: Job, encoded: EncodedJob, written: Written) -> tuple[float, ...] | None:
        """Find out what an answer read of every visual token, if the request asks and the model is here."""
        episode = job.prepared.episode
        if episode is None or episode.walk is None or not self._language.is_here:
            return None
        shares = visual_attention(self._models.vlm, job.prepared.prompt, encoded.visuals, written.token_ids)
        job.costs.tokens += job.prepared.prompt.shape[1]
        return tuple(shares.tolist())

    def _depth(self, job: Job, estimates: Sequence[Understood], is_remembered: bool) -> DepthUsed | None:
        if job.prepared.source != "estimate":
            return job.prepared.depth
        assert self._models.estimation is not None, "there are estimates"
        return used(
            "estimate",
            estimates,
            self._models.estimation.estimator,
            is_remembered,
            job.prepared.notes,
        )

    def _handle_failure(self, jobs: Sequence[Job], failure: Exception) -> str:
        """Fail a single job; let several run again in two halves. Return the outcome label of the batch."""
        if _is_fatal(failure):
            for job in jobs:
                job.fail(ServiceError("not_ready", reason="failed", retry_after_s=5))
            raise FatalDeviceError(str(failure)) from failure
        if _is_out_of_memory(failure):
            return self._out_of_memory(jobs)
        if len(jobs) > 1:
            return "split"
        expected = isinstance(failure, ServiceError | EstimatorError | VlmError)
        if not expected:
            log.error("a request failed in the model thread", exc_info=failure)
            self._limits.quarantine(jobs[0])
        jobs[0].fail(failure if expected else ServiceError("internal"))
        return "failed"

    def _out_of_memory(self, jobs: Sequence[Job]) -> str:
        if self._models.vlm.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(jobs) > 1 or (jobs[0].prepared.views > 1 and self._limits.limit > 1):
            self._limits.shrink()
        elif not self._requeue(jobs[0]):
            self._limits.quarantine(jobs[0])
            jobs[0].fail(ServiceError("too_costly"))
        return "out_of_memory"

    def _between(self, jobs: Sequence[Job]) -> None:
        self._heartbeat()
        if not any(job.is_open for job in jobs):
            raise RequestCancelled


def _is_fatal(error: Exception) -> bool:
    """Return whether the device is lost: after an illegal access or assertion all results are invalid."""
    if _is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; some libraries below torch report it in their message only."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in words or "ALLOC_FAILED" in words


class NullObserver:
    """Ignore every observation; for use without telemetry."""

    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None:
        """Hear nothing of it."""

    def frames_looked_up(self, hits: int, misses: int) -> None:
        """Hear nothing of it."""


def answer_here(models: Models, prepared: Prepared, timer: StageTimer | None = None) -> Inferred:
    """Answer a prepared question now. Raises what its models raise, and ServiceError."""
    job = Job(prepared, timer or StageTimer())
    for _ in BatchRunner(models, BatchQueue(prepared.views), NullObserver(), lambda: None).run([job]):
        pass
    return job.answer.result()
