"""Which jobs run together: groups, order, limits, memory that ran out, inputs that made a batch fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batch_queue import CALM_BATCHES, QUARANTINE_S, Batcher
from service.engine.jobs import Job
from tests.service.jobs import Waiting, toy_job


def all_batches(batcher: Batcher) -> list[list[Job]]:
    batches = []
    while batch := batcher.take():
        batches.append(batch)
    return batches


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=30),
    st.integers(1, 8),
)
def test_every_wanted_job_runs_once_and_only_with_its_own_kind(
    asked: list[tuple[str, int, bool]], limit: int
) -> None:
    batcher = Batcher(limit)
    jobs = [toy_job(plan, images, call=Waiting(wanted)) for plan, images, wanted in asked]
    for job in jobs:
        batcher.add(job)
    batches = all_batches(batcher)
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
    batcher = Batcher(8)
    for is_encoded in (False, True, False):
        batcher.add(toy_job(is_encoded=is_encoded))
    assert [len(batch) for batch in all_batches(batcher)] == [2, 1]


def test_a_large_job_is_not_overtaken_forever_by_small_ones() -> None:
    batcher = Batcher(4)
    small, large = toy_job(images=2), toy_job(images=4)
    for job in (small, large, toy_job(images=1)):
        batcher.add(job)
    assert batcher.take() == [small]
    assert batcher.take() == [large]


def test_nobody_runs_who_is_not_wanted_any_more() -> None:
    batcher, left = Batcher(8), Waiting(False)
    batcher.add(toy_job(call=left))
    assert batcher.take() == [] and len(batcher) == 0


def test_batches_shrink_and_grow_back() -> None:
    batcher = Batcher(8)
    batcher.shrink()
    batcher.shrink()
    assert batcher.limit == 2
    for _ in range(2 * CALM_BATCHES):
        batcher.went_well()
    assert batcher.limit == 8
    for _ in range(5):
        batcher.shrink()
    assert batcher.limit == 1
    for _ in range(CALM_BATCHES - 1):
        batcher.went_well()
    assert batcher.limit == 1, "not before it has gone well for long enough"


@pytest.mark.parametrize("place", range(4))
def test_a_poisonous_input_runs_alone_for_a_while(place: int) -> None:
    now = [0.0]
    batcher = Batcher(8, clock=lambda: now[0])
    batcher.quarantine(toy_job(digest=b"poison"))

    def lengths() -> list[int]:
        for at in range(4):
            batcher.add(toy_job(digest=b"poison" if at == place else b"honest"))
        return sorted(len(batch) for batch in all_batches(batcher))

    assert lengths() == [1, 3]
    now[0] = QUARANTINE_S + 1
    assert lengths() == [4]
