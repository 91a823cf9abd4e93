"""Three replicas behind the proxy: who gets what, one killed, one draining, all restarted in turn."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.containers.asking import load, load_during, wait_until_answered
from tests.containers.engine import ROOT, Engine, kill
from tests.containers.stack import PROJECT, URL, Stack, started

pytestmark = pytest.mark.containers
REPLICAS = 3
ROLLING = 2000
"""Requests that a rolling restart must not lose one of."""


@pytest.fixture(scope="module")
def stack(found: Engine, cpu: str) -> Iterator[Stack]:
    with started(found, "service", replicas=REPLICAS, threads=1) as stack:
        wait_until_answered(URL)
        stack.wait_for_replicas(REPLICAS)
        yield stack


def answered_by(stack: Stack) -> dict[str, int]:
    """Return how many answers with 200 the proxy has from each address."""
    (proxy,) = stack.containers("proxy")
    metrics = stack.get(proxy, "http://127.0.0.1:8404/metrics")
    pattern = r'haproxy_server_http_responses_total\{proxy="answers",server="(\w+)",code="2xx"\} (\d+)'
    return {name: int(number) for name, number in re.findall(pattern, metrics) if int(number)}


def test_every_replica_gets_its_share(stack: Stack) -> None:
    before, began = answered_by(stack), time.monotonic()
    done = load(URL, 12, lambda sent: sent < 120, frames=12)
    rate = len(done.samples) / (time.monotonic() - began)
    after = answered_by(stack)
    shares = sorted(after[name] - before.get(name, 0) for name in after)
    print(f"12 clients, {REPLICAS} replicas: {rate:.1f} answers/s, {shares} by replica")
    assert done.lost == [] and done.statuses == {200: 120}
    assert len(shares) == REPLICAS and min(shares) > 120 / REPLICAS / 2


def test_a_replica_that_dies_costs_only_what_it_had(stack: Stack) -> None:
    victim = stack.containers("service")[0]
    killer = threading.Timer(2, kill, (stack.engine, victim))
    killer.start()
    end = time.monotonic() + 15
    done = load(URL, 9, lambda _: time.monotonic() < end, frames=9)
    killer.join()
    print(f"one of {REPLICAS} killed under load: {done.statuses}, closed {len(done.lost)}")
    assert done.unsent == 0 and set(done.statuses) <= {200, 502, 503}
    told = done.statuses[502] + done.statuses[503]
    assert told + len(done.lost) <= 9, "at most what it had; kept-alive clients see their connection closed"
    assert set(done.lost) <= {"closed without a response"}
    stack.wait_for_replicas(REPLICAS)


def test_a_replica_that_drains_costs_nothing(stack: Stack) -> None:
    leaving = stack.containers("service")[1]
    done = load_during(lambda: stack.engine("stop", "--time", "45", leaving), URL, 9, frames=9, after_s=1)
    print(f"one of {REPLICAS} stopped under load: {done.statuses}")
    assert done.lost == [] and done.unsent == 0 and set(done.statuses) == {200}
    stack.engine("start", leaving)
    stack.wait_for_replicas(REPLICAS)


def test_a_rolling_restart_loses_none_of_two_thousand(stack: Stack) -> None:
    first = [stack.inspect(one, "{{.State.StartedAt}}") for one in stack.containers("service")]
    restart = subprocess.Popen(
        [ROOT / "docker" / "rolling_restart.sh", "service"],
        env={**stack.engine.environment, "ENGINE": stack.engine.program, "COMPOSE_PROJECT_NAME": PROJECT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    began = time.monotonic()
    try:
        done = load(URL, 6, lambda sent: sent < ROLLING or restart.poll() is None, frames=6)
    finally:
        printed, _ = restart.communicate(timeout=600)
    took = time.monotonic() - began
    print(f"rolling restart: {len(done.samples)} requests in {took:.0f} s: {done.statuses}, lost {done.lost}")
    assert restart.returncode == 0 and printed.count("restarted ") == REPLICAS, printed
    again = [stack.inspect(one, "{{.State.StartedAt}}") for one in stack.containers("service")]
    assert len(again) == REPLICAS and set(first).isdisjoint(again)
    assert done.lost == [] and done.unsent == 0 and len(done.samples) >= ROLLING
    assert set(done.statuses) == {200}
