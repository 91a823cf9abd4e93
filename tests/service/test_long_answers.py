"""Answers may be as long as the context: others go on meanwhile, and rows in memory stay bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from service.engine import model_thread
from service.engine.batch_queue import BatchQueue
from service.engine.jobs import Job
from service.engine.model_thread import MAX_RUNNING, ModelThread
from tests.loopback import wait_for
from tests.service.jobs import toy_job

LIMIT = 2
STEPS = 16


class Endless:
    """Run jobs of the spec "short" in one step, and all others until they are answered from outside."""

    def __init__(self) -> None:
        self.began: list[Job] = []
        self.most_rows = self.steps = 0

    def run(self, jobs: Sequence[Job]) -> Iterator[None]:
        self.began += jobs
        while any(job.is_open for job in jobs):
            yield
            self.steps += 1
            self.most_rows = max(self.most_rows, sum(job.choices for job in self.began if job.is_open))
            for job in jobs:
                if job.prepared.spec == "short":
                    answer(job)


def answer(job: Job) -> None:
    done: Any = "done"
    job.succeed(done)


@pytest.fixture
def thread() -> Iterator[tuple[ModelThread, Endless]]:
    running, runner = ModelThread(BatchQueue(LIMIT), 1, lambda error: None), Endless()
    fake: Any = runner
    running.use(fake)
    yield running, runner
    for job in runner.began:
        answer(job)
    assert running.close(60)


def long_jobs(number: int, choices: int = 1) -> list[Job]:
    return [toy_job(f"long {at}", params=(None,) * choices) for at in range(number)]


def test_a_short_answer_does_not_wait_for_long_ones_to_end(
    thread: tuple[ModelThread, Endless], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_thread, "LONG_STEPS", STEPS)
    running, runner = thread
    for job in long_jobs(MAX_RUNNING + 1):
        running.submit(job)
    short = toy_job("short")
    running.submit(short)
    assert short.answer.result(60) == "done"
    assert sum(job.is_open for job in runner.began) == MAX_RUNNING + 1


def test_it_would_wait_if_long_answers_counted(
    thread: tuple[ModelThread, Endless], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin."""
    monkeypatch.setattr(model_thread, "LONG_STEPS", sys.maxsize)
    running, runner = thread
    for job in long_jobs(MAX_RUNNING):
        running.submit(job)
    wait_for(lambda: len(runner.began) == MAX_RUNNING)
    short = toy_job("short")
    running.submit(short)
    after = runner.steps + 20 * STEPS
    wait_for(lambda: runner.steps > after)
    assert not short.answer.done()


def test_long_answers_never_have_more_rows_than_short_ones_could(
    thread: tuple[ModelThread, Endless], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_thread, "LONG_STEPS", STEPS)
    running, runner = thread
    for job in long_jobs(20, choices=2):
        running.submit(job)
    after = runner.steps + 100 * STEPS
    wait_for(lambda: runner.steps > after)
    assert runner.most_rows == MAX_RUNNING * LIMIT


def test_answers_count_in_a_batch_like_images() -> None:
    batch_queue = BatchQueue(4)
    two, three, images = (toy_job(params=(None,) * 2), toy_job(params=(None,) * 3), toy_job(images=2))
    for job in (two, images, three):
        batch_queue.add(job)
    assert batch_queue.take() == [two, images]
    assert batch_queue.take() == [three]
    assert (two.weight, images.weight, three.weight) == (2, 2, 3)
