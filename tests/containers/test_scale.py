"""Three replicas behind the proxy: who gets what, one killed, one draining, all restarted in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.containers import scale
from bench.containers.asking import wait_until_answered
from bench.containers.engine import Engine
from bench.containers.scale import REPLICAS, ROLLING, SHARED
from bench.containers.stack import URL, Stack, started

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def stack(found: Engine, cpu: str) -> Iterator[Stack]:
    with started(found, "service", replicas=REPLICAS, threads=1) as stack:
        wait_until_answered(URL)
        stack.wait_for_replicas(REPLICAS)
        yield stack


def test_every_replica_and_every_client_gets_its_share(stack: Stack) -> None:
    done = scale.throughput(stack)
    print(f"{REPLICAS} replicas: {done}")
    assert done["lost"] == 0 and done["answered"] == SHARED
    assert len(done["by_replica"]) == REPLICAS and min(done["by_replica"]) > SHARED / REPLICAS / 2
    assert min(done["by_client"]) > SHARED / scale.CLIENTS / 2


def test_frames_with_names_find_the_replica_that_remembers_them(stack: Stack) -> None:
    without, named = (scale.remembered(stack, 2000 + 100 * named, bool(named)) for named in range(2))
    print(f"remembered: {without['remembered']} without names, {named['remembered']} with")
    for done in (without, named):
        assert done["answered"] == done["frames"] * done["questions"]
    assert named["remembered"] > without["remembered"]


def test_a_replica_that_dies_costs_only_what_it_had(stack: Stack) -> None:
    done = scale.killed(stack)
    print(f"one of {REPLICAS} killed under load: {done}")
    assert done["unsent"] == 0 and set(done["codes"]) <= {"bad_gateway", "not_ready"}
    refused = done["refused"] + done["failed"]
    assert refused + done["lost"] <= done["clients"], (
        "at most what it had; kept-alive clients see their connection closed"
    )
    assert set(done["lost_how"]) <= {"closed without a response"}


def test_a_replica_that_drains_costs_nothing(stack: Stack) -> None:
    done = scale.drained(stack)
    print(f"one of {REPLICAS} stopped under load: {done}")
    assert done["answered"] == done["sent"] > 0


def test_a_rolling_restart_loses_none_of_two_thousand(stack: Stack) -> None:
    done = scale.rolled(stack)
    print(f"rolling restart: {done}")
    assert done["code"] == 0 and done["restarted"] == REPLICAS, done["printed"]
    assert done["printed"].count("restarted ") == REPLICAS
    assert done["answered"] == done["sent"] >= ROLLING
