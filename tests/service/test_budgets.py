"""What a key may use: never more inside than allowed, and a debt that time pays exactly as announced."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.api.errors import headers_of, status_of
from service.budgets import MINUTE_NS, SECOND_NS, Budgets, Costs
from service.errors import ServiceError
from service.settings import Settings


class Clock:
    """Nanoseconds that pass when told to."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def budgets(clock: Clock | None = None, **limits: Any) -> Budgets:
    return Budgets(Settings(**limits), clock or Clock())


def retry_after(budgets: Budgets, key: str | None) -> int | None:
    """Return what a refusal announces, None if the key is let in (and leaves at once)."""
    try:
        with budgets.acquire(key):
            return None
    except ServiceError as error:
        assert (error.code, status_of(error)) == ("budget_exceeded", 429)
        return int(headers_of(error)["Retry-After"])


def test_a_unit_is_a_megapixel_or_a_hundred_tokens() -> None:
    assert Costs(pixels=1_500_000).units == 1.5
    assert Costs(tokens=250).units == 2.5
    assert Costs(pixels=1_000_000, tokens=100).units == 2
    assert Costs().units == 0


def test_no_more_requests_than_allowed_are_inside() -> None:
    limited = budgets(key_max_in_flight=2)
    with limited.acquire("robot"), limited.acquire("robot"):
        assert retry_after(limited, "robot") == 1
        assert retry_after(limited, "lab") is None
        assert limited.in_flight("robot") == 2
    assert limited.in_flight("robot") == 0 and retry_after(limited, "robot") is None


def test_a_place_is_given_back_however_it_ends() -> None:
    limited = budgets(key_max_in_flight=1)
    for error in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), limited.acquire("robot"):
            raise error
    assert limited.in_flight("robot") == 0


def test_a_refusal_takes_no_place() -> None:
    limited = budgets(key_max_in_flight=1)
    with limited.acquire("robot"):
        assert [retry_after(limited, "robot") for _ in range(3)] == [1, 1, 1]
    assert limited.in_flight("robot") == 0


def test_a_bucket_holds_a_minute_and_fills_evenly() -> None:
    clock = Clock(12345)
    spent = budgets(clock, key_units_per_minute=60)
    assert spent.left("robot") == 60
    spent.charge("robot", 45)
    assert spent.left("robot") == 15
    clock.now += 15 * SECOND_NS
    assert spent.left("robot") == 30
    clock.now += 3600 * SECOND_NS
    assert spent.left("robot") == 60


def test_debt_is_paid_by_time_and_not_a_nanosecond_early() -> None:
    clock = Clock(7)
    spent = budgets(clock, key_units_per_minute=60)
    spent.charge("robot", 60)
    assert retry_after(spent, "robot") is None  # empty is no debt
    spent.charge("robot", 2.5)
    assert spent.left("robot") == -2.5 and retry_after(spent, "robot") == 3
    clock.now += 2_500_000_000 - 1
    assert retry_after(spent, "robot") == 1
    clock.now += 1
    assert retry_after(spent, "robot") is None


def test_who_is_inside_stays_when_the_key_falls_into_debt() -> None:
    spent = budgets(key_units_per_minute=1, key_max_in_flight=2)
    with spent.acquire("robot"):
        spent.charge("robot", 10)
        assert retry_after(spent, "robot") == 9 * 60
    assert spent.in_flight("robot") == 0


def test_debt_of_one_key_is_nobody_elses() -> None:
    spent = budgets(key_units_per_minute=1)
    spent.charge("robot", 1000)
    assert retry_after(spent, "robot") is not None
    assert retry_after(spent, "lab") is None and spent.left("lab") == 1
    assert retry_after(spent, None) is None


def test_without_limits_or_without_a_key_there_is_no_budget() -> None:
    free = budgets()
    free.charge("robot", 1e9)
    assert free.left("robot") is None
    strict = budgets(key_max_in_flight=1, key_units_per_minute=1)
    strict.charge(None, 1e9)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(free.acquire("robot"))
            stack.enter_context(strict.acquire(None))
        assert retry_after(free, "robot") is None


@pytest.mark.parametrize("used", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_a_charge_that_is_none_is_refused(used: float) -> None:
    spent = budgets(key_units_per_minute=1)
    with pytest.raises(ValueError):
        spent.charge("robot", used)
    assert spent.left("robot") == 1


def test_threads_share_the_places_of_a_key() -> None:
    limited, most = budgets(key_max_in_flight=3, key_units_per_minute=1e9), []

    def work(_: int) -> int:
        answered = 0
        for _ in range(200):
            try:
                with limited.acquire("robot"):
                    most.append(limited.in_flight("robot"))
                    limited.charge("robot", 1)
                    answered += 1
                    time.sleep(0)
            except ServiceError:
                pass
        return answered

    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(work, range(8)))
    assert 1 <= max(most) <= 3 and limited.in_flight("robot") == 0
    assert limited.left("robot") == pytest.approx(1e9 - answered, abs=1)


def test_it_costs_next_to_nothing() -> None:
    cheap = Budgets(Settings(key_max_in_flight=4, key_units_per_minute=1e9))
    best = float("inf")
    for _ in range(20):
        start = time.thread_time()
        for _ in range(100):
            with cheap.acquire("robot"):
                cheap.charge("robot", 1)
        best = min(best, (time.thread_time() - start) / 100)
    assert best < 100e-6


KEYS = st.sampled_from(["robot", "lab"])
RATES = [0.1, 1.0, 7.3, 60.0, 12345.6]


class Clients(RuleBasedStateMachine):
    """Two keys come and go, spend and wait; a model in whole nanoseconds says what must be true."""

    kind: type[Budgets] = Budgets

    @initialize(rate=st.sampled_from(RATES), limit=st.integers(1, 3), start=st.integers(0, 2**62))
    def open(self, rate: float, limit: int, start: int) -> None:
        self.rate, self.limit, self.clock = rate, limit, Clock(start)
        self.budgets = self.kind(Settings(key_max_in_flight=limit, key_units_per_minute=rate), self.clock)
        self.in_flight: dict[str, list[AbstractContextManager[None]]] = {"robot": [], "lab": []}
        self.level = dict.fromkeys(self.in_flight, MINUTE_NS)

    @rule(key=KEYS)
    def enter(self, key: str) -> None:
        place = self.budgets.acquire(key)
        may = self.level[key] >= 0 and len(self.in_flight[key]) < self.limit
        try:
            place.__enter__()
        except ServiceError as error:
            assert not may
            wait = int(headers_of(error)["Retry-After"])
            assert wait >= 1
            if self.level[key] < 0:
                assert wait == -(self.level[key] // SECOND_NS)
        else:
            assert may
            self.in_flight[key].append(place)

    @rule(key=KEYS)
    def release(self, key: str) -> None:
        if self.in_flight[key]:
            self.in_flight[key].pop(0).__exit__(None, None, None)

    @rule(key=KEYS, share=st.floats(0, 3))
    def spend(self, key: str, share: float) -> None:
        """Charge up to three minutes' worth."""
        used = share * self.rate
        self.budgets.charge(key, used)
        self.level[key] -= round(used / self.rate * MINUTE_NS)

    @rule(nanoseconds=st.integers(0, 2 * MINUTE_NS))
    def wait(self, nanoseconds: int) -> None:
        self.clock.now += nanoseconds
        for key in self.level:
            self.level[key] = min(MINUTE_NS, self.level[key] + nanoseconds)

    @rule(key=KEYS)
    def wait_as_told(self, key: str) -> None:
        """Do what a polite client does; with a place free it must be let in."""
        while self.in_flight[key]:
            self.release(key)
        wait_s = retry_after(self.budgets, key)
        if wait_s is not None:
            self.wait((wait_s - 1) * SECOND_NS)
            assert retry_after(self.budgets, key) == 1
            self.wait(SECOND_NS)
            assert retry_after(self.budgets, key) is None

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "level"):
            return
        for key, level in self.level.items():
            assert self.budgets.in_flight(key) == len(self.in_flight[key]) <= self.limit
            left = self.budgets.left(key)
            assert left is not None and left <= self.rate
            assert left == pytest.approx(level / MINUTE_NS * self.rate, rel=1e-9, abs=1e-9)


QUICK = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
FIND = settings(QUICK, phases=[Phase.generate], database=None, derandomize=True, report_multiple_bugs=False)


def test_whatever_clients_do_the_budgets_hold() -> None:
    run_state_machine_as_test(Clients, settings=QUICK)


class Overflowing(Budgets):
    """Saves up: a bucket fills beyond a minute."""

    def _debt_ns(self, key: str) -> int:
        now = self._clock()
        return self._full_at_ns.get(key, now) - now - MINUTE_NS


class Forgetful(Budgets):
    """Gives a place back twice."""

    def _enter(self, key: str, number: int) -> None:
        super()._enter(key, number)
        self._in_flight[key] = max(0, self._in_flight[key] - 1)


class Hopeful(Budgets):
    """Announces whole seconds, rounded down."""

    def _debt_ns(self, key: str) -> int:
        debt_ns = super()._debt_ns(key)
        return debt_ns - SECOND_NS // 2 if debt_ns > SECOND_NS else debt_ns


class Common(Budgets):
    """Has one bucket for all."""

    def charge(self, key: str | None, used: float) -> None:
        super().charge("robot", used)
        super().charge("lab", used)


@pytest.mark.parametrize("broken", [Overflowing, Forgetful, Hopeful, Common])
def test_broken_budgets_are_found_out(broken: type[Budgets]) -> None:
    machine = type("Broken", (Clients,), {"kind": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=FIND)
