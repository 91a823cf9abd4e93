"""Places: exactly as many as there are, given back however a request ends, and an honest Retry-After."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.engine.admission import Admission
from service.errors import ServiceError


def test_full_is_full_and_a_place_comes_back() -> None:
    admission = Admission(3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.acquire())
        with pytest.raises(ServiceError, match="overloaded") as refused, admission.acquire():
            pass
        assert (refused.value.retry_after_s or 0) >= 1
        assert admission.in_flight == 3, "who is refused takes no place"
    assert admission.in_flight == 0


def test_several_places_are_given_together_or_not_at_all() -> None:
    admission = Admission(3)
    with admission.acquire(), pytest.raises(ServiceError, match="overloaded"), admission.acquire(3):
        pass
    with admission.acquire(), admission.acquire(2):
        assert admission.in_flight == 3
    assert admission.in_flight == 0


def test_a_place_comes_back_after_an_error() -> None:
    admission = Admission(1)
    with pytest.raises(RuntimeError), admission.acquire():
        raise RuntimeError
    with admission.acquire():
        assert admission.in_flight == 1


def test_retry_after_follows_the_work_that_waits() -> None:
    admission = Admission(100)
    for _ in range(50):
        admission.served(4, 8.0)  # two seconds each
    with admission.acquire(10):
        assert 20 <= admission.retry_after_s() <= 30
    with admission.acquire(1):
        assert 2 <= admission.retry_after_s() <= 3


def test_who_has_just_begun_is_refused_when_full_and_takes_no_slot() -> None:
    admission = Admission(1)
    admission.check()
    assert admission.in_flight == 0
    with admission.acquire(), pytest.raises(ServiceError, match="overloaded") as refused:
        admission.check()
    assert (refused.value.retry_after_s or 0) >= 1


def test_closed_lets_nobody_in_and_nobody_down() -> None:
    admission = Admission(2)
    with admission.acquire():
        admission.close()
        with pytest.raises(ServiceError, match="draining"):
            admission.check()
        with admission.acquire():
            assert admission.in_flight == 2, "its body was arriving before"
    assert admission.in_flight == 0
