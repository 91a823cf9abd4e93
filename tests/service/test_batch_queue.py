"""Which jobs run together: groups, order, limits, memory that ran out, inputs that made a batch fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batch_queue import QUARANTINE_S, SUCCESSES_TO_GROW, BatchQueue
from service.engine.jobs import Job
from tests.service.jobs import Waiting, toy_job


def all_batches(batch_queue: BatchQueue) -> list[list[Job]]:
    batches = []
    while batch := batch_queue.take():
        batches.append(batch)
    return batches


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=30),
    st.integers(1, 8),
)
def test_every_wanted_job_runs_once_and_only_with_its_own_kind(
    arrivals: list[tuple[str, int, bool]], limit: int
) -> None:
    batch_queue = BatchQueue(limit)
    jobs = [toy_job(plan, images, waiter=Waiting(wanted)) for plan, images, wanted in arrivals]
    for job in jobs:
        batch_queue.add(job)
    batches = all_batches(batch_queue)
    assert sorted(id(job) for batch in batches for job in batch) == sorted(
        id(job) for job in jobs if job.is_open
    )
    for batch in batches:
        assert len({job.group for job in batch}) == 1
        assert len(batch) == 1 or sum(job.images for job in batch) <= limit
        order = [jobs.index(job) for job in batch]
        assert order == sorted(order)
    firsts = [jobs.index(batch[0]) for batch in batches]
    assert firsts == sorted(firsts), "the longest waiting job comes first"


def test_what_is_encoded_does_not_wait_for_what_is_not() -> None:
    batch_queue = BatchQueue(8)
    for is_encoded in (False, True, False):
        batch_queue.add(toy_job(is_encoded=is_encoded))
    assert [len(batch) for batch in all_batches(batch_queue)] == [2, 1]


def test_a_large_job_is_not_overtaken_forever_by_small_ones() -> None:
    batch_queue = BatchQueue(4)
    small, large = toy_job(images=2), toy_job(images=4)
    for job in (small, large, toy_job(images=1)):
        batch_queue.add(job)
    assert batch_queue.take() == [small]
    assert batch_queue.take() == [large]


def test_nobody_runs_who_is_not_wanted_any_more() -> None:
    batch_queue, left = BatchQueue(8), Waiting(False)
    batch_queue.add(toy_job(waiter=left))
    assert batch_queue.take() == [] and len(batch_queue) == 0


def test_batches_shrink_and_grow_back() -> None:
    batch_queue = BatchQueue(8)
    batch_queue.shrink()
    batch_queue.shrink()
    assert batch_queue.limit == 2
    for _ in range(2 * SUCCESSES_TO_GROW):
        batch_queue.on_success()
    assert batch_queue.limit == 8
    for _ in range(5):
        batch_queue.shrink()
    assert batch_queue.limit == 1
    for _ in range(SUCCESSES_TO_GROW - 1):
        batch_queue.on_success()
    assert batch_queue.limit == 1, "not before it has gone well for long enough"


@pytest.mark.parametrize("place", range(4))
def test_a_poisonous_input_runs_alone_for_a_while(place: int) -> None:
    now = [0.0]
    batch_queue = BatchQueue(8, clock=lambda: now[0])
    batch_queue.quarantine(toy_job(digest=b"poison"))

    def lengths() -> list[int]:
        for at in range(4):
            batch_queue.add(toy_job(digest=b"poison" if at == place else b"honest"))
        return sorted(len(batch) for batch in all_batches(batch_queue))

    assert lengths() == [1, 3]
    now[0] = QUARANTINE_S + 1
    assert lengths() == [4]
