"""The one thread that uses the models: it starts batches, steps the running ones, and records a heartbeat.

Short answers finish before the next batch begins; long ones take turns with it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import torch

from service.engine.batch_queue import BatchQueue
from service.engine.batch_runner import BatchRunner, FatalDeviceError
from service.engine.jobs import Job
from service.errors import ServiceError

log = logging.getLogger("tosa_vqa")

TORCH_THREADS = torch.get_num_threads()
"""Number of threads that torch chose for this machine, read before any thread changes the default."""

STEPS_BETWEEN_BATCHES = 8
MAX_RUNNING = 4
"""Batches that decode at the same time, each with a cache of its own in memory; long ones do not count."""
LONG_STEPS = 256
"""Tokens after which a batch is long: others no longer wait for it to end, only for its turns."""
TICK_S = 0.5

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class RunningBatch:
    """Hold a batch that has begun, and count its steps."""

    jobs: list[Job]
    work: Iterator[None]
    steps: int = 0

    @property
    def is_long(self) -> bool:
        """Return whether it has decoded for so long that the next batches go ahead."""
        return self.steps > LONG_STEPS

    @property
    def rows(self) -> int:
        """Count the answers that may still be decoded, each with a cache in memory."""
        return sum(job.choices for job in self.jobs if job.is_open)


class ModelThread:
    """Run batches, one step at a time. `on_death` is called if the thread has to end early."""

    def __init__(
        self, batch_queue: BatchQueue, torch_threads: int | None, on_death: Callable[[BaseException], None]
    ) -> None:
        self._batch_queue, self._on_death = batch_queue, on_death
        self._runner: BatchRunner | None = None
        self._changed = Condition()
        self._tasks: deque[tuple[Future[Any], Callable[[], None]]] = deque()
        self._running: deque[RunningBatch] = deque()  # but the one that is in its step
        self._started = self._ended = 0
        self._is_closing = False
        self._last_heartbeat = perf_counter()
        # `close` joins the thread; it is a daemon so that a process that must exit now does not wait for it.
        self._thread = Thread(
            target=self._loop, args=(torch_threads or TORCH_THREADS,), name="model", daemon=True
        )
        self._thread.start()

    @property
    def heartbeat_age_s(self) -> float:
        """Return the seconds since the last heartbeat: a step of work, or a tick while idle."""
        return perf_counter() - self._last_heartbeat

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Count the jobs that wait."""
        return len(self._batch_queue)

    @property
    def running(self) -> int:
        """Count the batches that run, the one in its step among them."""
        return self._started - self._ended

    def use(self, runner: BatchRunner) -> None:
        """Answer jobs with this runner."""
        self._runner = runner
        self.heartbeat()

    def heartbeat(self) -> None:
        """Record that the thread makes progress."""
        self._last_heartbeat = perf_counter()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ServiceError if the thread has ended."""
        with self._changed:
            if self._is_closing or not self.is_alive:
                raise ServiceError("not_ready", reason="failed", retry_after_s=5)
            self._batch_queue.add(job)
            self._changed.notify()

    def forget(self, job: Job) -> None:
        """Remove a cancelled job from the queue; a running job checks by itself."""
        with self._changed:
            self._batch_queue.forget(job)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run work other than a job, such as loading, in this thread and before the queue."""
        future: Future[T] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            self._tasks.append((future, task))
            self._changed.notify()
        return future

    def requeue(self, job: Job) -> bool:
        """Queue a job that ran out of memory, if another batch holds memory; else return False."""
        if not self._running:
            return False
        with self._changed:
            self._batch_queue.add(job)
        return True

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish the current step, fail waiting jobs and end the thread; return whether it has ended."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self, torch_threads: int) -> None:
        # Every thread that uses torch gets an OpenMP team; asking for its size makes torch fix it now.
        torch.set_num_threads(torch_threads)
        torch.get_num_threads()
        try:
            while self._turn():
                self.heartbeat()
        except BaseException as error:
            log.critical("the model thread has died: %s", error, exc_info=error)
            self._fail_all()
            self._on_death(error)
        else:
            self._fail_all()

    def _turn(self) -> bool:
        """Run one task, start one batch or decode a few tokens; wait if there is nothing to do."""
        task, jobs = self._next()
        if task is not None:
            task()
        if self._is_closing and not jobs:
            return False
        if jobs:
            assert self._runner is not None, "jobs come when the models are loaded"
            self._started += 1
            self._running.append(RunningBatch(jobs, self._runner.run(jobs)))
        for _ in range(STEPS_BETWEEN_BATCHES):
            if not self._running:
                break
            self._step()
            self.heartbeat()
        return True

    def _step(self) -> None:
        """Move the batch on whose turn it is; one that goes on waits for its next turn."""
        batch = self._running.popleft()
        batch.steps += 1
        try:
            next(batch.work)
        except StopIteration:
            self._ended += 1
            return
        except FatalDeviceError:
            self._running.append(batch)
            raise
        except Exception as error:
            log.error("a batch failed outside of its models", exc_info=error)
            self._ended += 1
            _fail(batch.jobs, ServiceError("internal"))
            return
        self._running.append(batch)

    def _next(self) -> tuple[Callable[[], None] | None, list[Job]]:
        with self._changed:
            if not (self._tasks or self._running or len(self._batch_queue) or self._is_closing):
                self._changed.wait(TICK_S)
            if self._is_closing:
                return None, []
            if self._tasks:
                return self._tasks.popleft()[1], []
            return None, self._batch_queue.take() if self._has_room() else []

    def _has_room(self) -> bool:
        """Return whether another batch may begin: few others are short, and all rows fit into memory."""
        if self._runner is None or sum(not batch.is_long for batch in self._running) >= MAX_RUNNING:
            return False
        rows, most = sum(batch.rows for batch in self._running), self._batch_queue.limit
        return not self._running or rows + most <= MAX_RUNNING * most

    def _fail_all(self) -> None:
        with self._changed:
            self._is_closing = True
            waiting = self._batch_queue.clear()
            for future, _ in self._tasks:
                future.cancel()
        for batch in self._running:
            waiting += batch.jobs
        _fail(waiting, ServiceError("not_ready", reason="failed", retry_after_s=5))


def _fail(jobs: list[Job], error: ServiceError) -> None:
    for job in jobs:
        job.fail(error)
