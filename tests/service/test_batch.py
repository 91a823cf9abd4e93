"""One batch: the same answers as alone, every frame encoded once, and whatever fails fails alone."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import service.engine.vision_stage
from service.engine.batch_queue import BatchQueue
from service.engine.batch_runner import BatchRunner, FatalDeviceError, answer_here
from service.engine.jobs import Job
from service.errors import ServiceError
from service.pipeline.frame_cache import FrameCache
from service.pipeline.frames import Frame, frame_visuals
from service.pipeline.models import Models
from service.pipeline.prepare import Prepared, prepare
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tests.depth.files import png8
from tests.service.jobs import Waiting
from vlm import Decoding, Visual, load_vlm

WORDS = ("how many cubes ?", "is the red one left ?", "many ?", "the the the red cubes of the one ?")


class Heard:
    """What a batch tells."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.hits = self.misses = 0

    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None:
        self.outcomes.append(outcome)

    def frames_looked_up(self, hits: int, misses: int) -> None:
        self.hits += hits
        self.misses += misses


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Models:
    return Models(load_vlm(checkpoint), None, FrameCache(0))


@pytest.fixture
def models(loaded: Models) -> Models:
    return Models(loaded.vlm, None, FrameCache(2**20))


def image_of(seed: int) -> bytes:
    return png8(np.random.default_rng(seed).integers(0, 256, (48, 64, 3)))


def ready(models: Models, seeds: Sequence[int], **fields: Any) -> Prepared:
    fields = {"question": WORDS[seeds[0] % len(WORDS)], "method": "tome", "max_new_tokens": 6, **fields}
    return prepare(
        models, VqaRequest(VqaFields(**fields), tuple(map(image_of, seeds)), ()), Settings(), StageTimer()
    )


def jobs_for(models: Models, number: int, **fields: Any) -> list[Job]:
    return [Job(ready(models, [seed], **fields), StageTimer(), Waiting()) for seed in range(number)]


def run(models: Models, jobs: Sequence[Job], limits: BatchQueue | None = None) -> Heard:
    heard = Heard()
    limits = BatchQueue(16) if limits is None else limits
    for _ in BatchRunner(models, limits, heard, lambda: None).run(jobs):
        pass
    return heard


def texts(jobs: Sequence[Job]) -> list[str]:
    return [job.answer.result(0).text for job in jobs]


def alone(models: Models, prepared: Prepared) -> str:
    return answer_here(Models(models.vlm, None, FrameCache(0)), prepared).text


@pytest.mark.parametrize("number", [2, 5, 8])
@pytest.mark.parametrize("method", ["none", "tome", "tosa", "cubist"])
def test_a_batch_says_what_each_would_hear_alone(models: Models, number: int, method: str) -> None:
    more = {"depth": "none"} if method == "tosa" else {}
    jobs = jobs_for(models, number, method=method, **more)
    heard = run(models, jobs)
    assert texts(jobs) == [alone(models, job.prepared) for job in jobs]
    assert heard.outcomes == ["ok"]
    assert {job.answer.result(0).batch_size for job in jobs} == {number}


def test_questions_with_different_numbers_of_images_go_together(models: Models) -> None:
    jobs = [Job(ready(models, seeds), StageTimer()) for seeds in ([0], [1, 2, 3], [4, 5])]
    run(models, jobs)
    assert texts(jobs) == [alone(models, job.prepared) for job in jobs]


def test_ten_questions_about_one_frame_encode_it_once(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = count_encoded(monkeypatch)
    jobs = [Job(ready(models, [7], question=f"how many {'red ' * i}?"), StageTimer()) for i in range(10)]
    heard = run(models, jobs[:5])
    run(models, jobs[5:])
    assert encoded == [1]
    assert [job.answer.result(0).cached for job in jobs] == [False] + [True] * 9
    assert jobs[0].timer.timings_ms().vision is not None
    assert all(job.timer.timings_ms().vision is None for job in jobs[1:])
    assert (heard.hits, heard.misses) == (4, 1)
    assert texts(jobs) == [alone(models, job.prepared) for job in jobs]


def test_a_frame_that_is_remembered_is_not_even_preprocessed(models: Models) -> None:
    run(models, [Job(ready(models, [3]), StageTimer())])
    again = ready(models, [3])
    assert again.is_encoded and again.frames[0].pixels is None


def test_cache_no_means_neither_from_memory_nor_into_it(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = count_encoded(monkeypatch)
    jobs = [Job(ready(models, [3], cache=False), StageTimer()) for _ in range(2)]
    run(models, jobs)
    assert encoded == [2] and models.frames.entries == 0
    assert not any(job.answer.result(0).cached for job in jobs)


def test_no_more_frames_at_once_than_the_limit(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = count_encoded(monkeypatch)
    job = Job(ready(models, [0, 1, 2, 3, 4]), StageTimer())
    run(models, [job], BatchQueue(2))
    assert encoded == [2, 2, 1]
    assert texts([job]) == [alone(models, job.prepared)]


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    numbers: list[int] = []

    def counted(vlm: Any, frames: Sequence[Frame], between: Any) -> list[Visual]:
        numbers.append(len(frames))
        return frame_visuals(vlm, frames, between)

    monkeypatch.setattr(service.engine.vision_stage, "frame_visuals", counted)
    return numbers


def poisoned(
    monkeypatch: pytest.MonkeyPatch, poison: Sequence[Job], error: Callable[[], Exception]
) -> list[int]:
    """Make the encoder fail on the frames of these jobs; return the sizes of what it was asked for."""
    keys, sizes = {job.prepared.frames[0].key for job in poison}, list[int]()

    def broken(vlm: Any, frames: Sequence[Frame], between: Any) -> list[Visual]:
        sizes.append(len(frames))
        if keys & {frame.key for frame in frames}:
            raise error()
        return frame_visuals(vlm, frames, between)

    monkeypatch.setattr(service.engine.vision_stage, "frame_visuals", broken)
    return sizes


@pytest.mark.parametrize("number", [2, 3, 8, pytest.param(16, marks=pytest.mark.long)])
def test_one_poisoned_request_fails_alone(
    models: Models, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for place in range(number):
        jobs = jobs_for(models, number, cache=False)
        limits = BatchQueue(16)
        with monkeypatch.context() as patch:
            sizes = poisoned(patch, [jobs[place]], lambda: RuntimeError("secret"))
            run(models, jobs, limits)
        assert isinstance(jobs[place].answer.exception(0), ServiceError)
        assert str(jobs[place].answer.exception(0)) == "internal"
        assert limits.is_quarantined(jobs[place])
        honest = [job for job in jobs if job is not jobs[place]]
        assert texts(honest) == [alone(models, job.prepared) for job in honest]
        assert not any(map(limits.is_quarantined, honest))
        assert len(sizes) <= 2 * math.ceil(math.log2(number)) + 1


def test_several_poisoned_requests_fail_alone(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_for(models, 8, cache=False)
    poison = [jobs[0], jobs[3], jobs[4]]
    with monkeypatch.context() as patch:
        poisoned(patch, poison, lambda: ValueError("secret"))
        run(models, jobs)
    assert [job.answer.exception(0) is not None for job in jobs] == [job in poison for job in jobs]


def test_without_isolation_the_neighbours_would_fail(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a runner that does not halve fails everybody."""
    jobs = jobs_for(models, 4, cache=False)
    poisoned(monkeypatch, jobs[:1], lambda: RuntimeError("secret"))
    runner = BatchRunner(models, BatchQueue(16), Heard(), lambda: None)
    with pytest.raises(RuntimeError, match="secret"):
        list(runner._answer(jobs))
    assert not any(job.answer.done() for job in jobs)


def test_a_poison_that_acts_while_decoding_fails_alone_and_no_text_comes_twice(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_for(models, 4, max_new_tokens=8)
    pieces: dict[int, list[str]] = {at: [] for at in range(4)}
    for at, job in enumerate(jobs):
        job.on_piece = lambda piece, at=at: pieces[at].append(piece.text)
    step, failures = Decoding.step, Counter[int]()

    def breaks_on_third(self: Decoding) -> Any:
        if any(row.prompt_tokens == poison_length and len(row.token_ids) == 2 for row in self.rows):
            failures[len(self.rows)] += 1
            raise RuntimeError("secret")
        return step(self)

    poison_length = jobs[3].prepared.prompt.shape[1]
    assert sum(job.prepared.prompt.shape[1] == poison_length for job in jobs) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "step", breaks_on_third)
        run(models, jobs)
    assert str(jobs[3].answer.exception(0)) == "internal"
    assert failures == {4: 1, 2: 1, 1: 1}
    for at in range(3):
        expected = alone(models, jobs[at].prepared)
        assert jobs[at].answer.result(0).text == expected == "".join(pieces[at])


def test_memory_that_runs_out_makes_smaller_batches_and_loses_nobody(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, limits = jobs_for(models, 8, cache=False), BatchQueue(8)

    def small_device(vlm: Any, frames: Sequence[Frame], between: Any) -> list[Visual]:
        if len(frames) > 2:
            raise torch.OutOfMemoryError("CUDA error: out of memory")
        return frame_visuals(vlm, frames, between)

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.vision_stage, "frame_visuals", small_device)
        run(models, jobs, limits)
    assert texts(jobs) == [alone(models, job.prepared) for job in jobs]
    assert limits.limit <= 2


def test_many_images_of_one_question_are_encoded_in_parts_when_memory_is_short(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, limits = Job(ready(models, [0, 1, 2, 3], cache=False), StageTimer()), BatchQueue(8)

    def tiny_device(vlm: Any, frames: Sequence[Frame], between: Any) -> list[Visual]:
        if len(frames) > 1:
            raise torch.OutOfMemoryError
        return frame_visuals(vlm, frames, between)

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.vision_stage, "frame_visuals", tiny_device)
        run(models, [job], limits)
    assert texts([job]) == [alone(models, job.prepared)]


def test_a_request_that_does_not_fit_alone_says_so(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_for(models, 4, cache=False)
    poisoned(monkeypatch, jobs[2:3], lambda: torch.OutOfMemoryError("no"))
    run(models, jobs)
    assert str(jobs[2].answer.exception(0)) == "too_costly"
    assert texts(jobs[:2]) and texts(jobs[3:])


def test_a_job_that_finds_no_memory_waits_while_others_hold_some(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,), back, limits = jobs_for(models, 1, cache=False), list[Job](), BatchQueue(8)

    def requeue(job: Job) -> bool:
        back.append(job)
        limits.add(job)
        return True

    with monkeypatch.context() as patch:
        poisoned(patch, [job], lambda: torch.OutOfMemoryError("no"))
        for _ in BatchRunner(models, limits, Heard(), lambda: None, requeue).run([job]):
            pass
    assert back == [job] and not job.answer.done()
    assert limits.limit == 8, "one that runs alone says nothing about batches"
    run(models, limits.take(), limits)
    assert texts([job]) == [alone(models, job.prepared)]


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"]
)
def test_memory_that_runs_out_below_torch_is_no_lost_device(
    models: Models, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    jobs = jobs_for(models, 2, cache=False)
    poisoned(monkeypatch, jobs[:1], lambda: RuntimeError(words))
    run(models, jobs)
    assert str(jobs[0].answer.exception(0)) == "too_costly" and texts(jobs[1:])


def test_after_a_split_answers_still_say_what_was_done_for_them(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, failures = jobs_for(models, 4), [RuntimeError("once")]
    step = Decoding.step

    def fails_once(self: Decoding) -> Any:
        if failures:
            time.sleep(0.2)
            raise failures.pop()
        return step(self)

    monkeypatch.setattr(Decoding, "step", fails_once)
    start = time.perf_counter()
    heard = run(models, jobs)
    took_ms = (time.perf_counter() - start) * 1000
    assert not any(job.answer.result(0).cached for job in jobs), "an encoder ran for each of them"
    assert (heard.hits, heard.misses) == (0, 4), "looked up once"
    for job in jobs:
        timings = job.timer.timings_ms()
        queue, vision = timings.queue, timings.vision
        assert queue is not None and queue >= 150, "what failed, and the other half, was waiting"
        assert vision is not None and vision < took_ms - 150


@pytest.mark.parametrize("place", range(3))
def test_nan_never_becomes_text_and_is_not_remembered(
    models: Models, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    jobs = jobs_for(models, 3)
    bad = jobs[place].prepared.frames[0].key

    def with_nan(vlm: Any, frames: Sequence[Frame], between: Any) -> list[Visual]:
        visuals = frame_visuals(vlm, frames, between)
        for at, frame in enumerate(frames):
            if frame.key == bad:
                features = visuals[at].features.clone()
                features[1, 0] = torch.nan
                visuals[at] = replace(visuals[at], features=features)
        return visuals

    with monkeypatch.context() as patch:
        patch.setattr(service.engine.vision_stage, "frame_visuals", with_nan)
        run(models, jobs)
    assert str(jobs[place].answer.exception(0)) == "numerical_error"
    honest = [job for at, job in enumerate(jobs) if at != place]
    assert texts(honest) == [alone(models, job.prepared) for job in honest]
    assert models.frames.entries == 2 and models.frames.get(bad) is None


def test_a_lost_device_answers_nobody(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_for(models, 3, cache=False)
    poisoned(monkeypatch, jobs[1:2], lambda: RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(FatalDeviceError):
        run(models, jobs)
    assert [str(job.answer.exception(0)) for job in jobs] == ["not_ready"] * 3


def test_who_leaves_while_it_decodes_does_not_touch_the_others(models: Models) -> None:
    jobs = jobs_for(models, 3, max_new_tokens=12)
    for step, _ in enumerate(BatchRunner(models, BatchQueue(8), Heard(), lambda: None).run(jobs)):
        if step == 1:
            jobs[1].waiter.is_active = False  # type: ignore[misc]
    assert not jobs[1].answer.done()
    honest = [jobs[0], jobs[2]]
    assert texts(honest) == [alone(models, job.prepared) for job in honest]


def test_nothing_goes_on_when_all_have_left(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, layers = jobs_for(models, 2, cache=False), Counter[str]()

    def leaving(vlm: Any, frames: Sequence[Frame], between: Callable[[], None]) -> list[Visual]:
        def count() -> None:
            layers["run"] += 1
            for job in jobs:
                job.waiter.is_active = False  # type: ignore[misc]
            between()

        return frame_visuals(vlm, frames, count)

    monkeypatch.setattr(service.engine.vision_stage, "frame_visuals", leaving)
    heard = run(models, jobs)
    assert layers["run"] == 1 and heard.outcomes == []
    assert not any(job.answer.done() for job in jobs)


def test_a_text_that_ends_the_answer(models: Models) -> None:
    job = jobs_for(models, 1, max_new_tokens=8)[0]
    whole = alone(models, job.prepared)
    word = whole.split()[1]
    pieces: list[str] = []
    job.stop, job.on_piece = (f"no such {word}", word), lambda piece: pieces.append(piece.text)
    run(models, [job])
    inferred = job.answer.result(0)
    assert inferred.text == whole[: whole.index(word)] == "".join(pieces)
    assert inferred.finish_reason == "stop" and inferred.completion_tokens <= 8
