"""One container as docs/containers.md starts it: what it answers, how it stops, and where its memory ends."""

from __future__ import annotations

import json
import time

import pytest

from bench.containers.asking import ask, load, load_during, wait_until_answered
from bench.containers.engine import Engine, kill
from bench.containers.hardened import running
from tests.loopback import START_S, wait_for

pytestmark = pytest.mark.containers


def state(engine: Engine, container: str) -> dict[str, object]:
    return json.loads(engine("inspect", "--format", "{{json .State}}", container))


def test_it_answers_right_and_stops_under_load_without_losing_anything(cpu: str, found: Engine) -> None:
    with running(found, "--memory", "3g") as (container, url):
        reply = wait_until_answered(url).json()
        assert reply["merge"]["method"] == "none" and reply["model"]["id"] == "room-tiny"
        again = ask(url).json()
        assert again["answer"] == reply["answer"] and again["cached"] is True
        done = load_during(lambda: found("stop", "--time", "45", container), url, 8, frames=4, after_s=3)
        print(f"stopped under load: {done.statuses}, connections refused at the end: {done.unsent}")
        assert done.lost == []
        assert done.statuses[200] > 8 and set(done.statuses) <= {200, 503}
        ended = state(found, container)
        assert ended["ExitCode"] == 0 and not ended["OOMKilled"]
        assert "Traceback" not in found("logs", container)


def test_more_memory_than_allowed_ends_the_process_and_not_the_service(cpu: str, found: Engine) -> None:
    """The kernel ends it, the engine starts it again, and it answers as before."""
    limits = ("--memory", "700m", "--memory-swap", "700m", "--restart", "unless-stopped")
    with running(found, *limits, "--env", "TOSA_VQA_MAX_BATCH=1") as (container, url):
        before = wait_until_answered(url).json()["answer"]
        hog = "b = bytearray(2**30); b[::4096] = b'x' * len(b[::4096])"
        eaten = found.tried("exec", container, "python", "-I", "-c", hog)
        assert eaten.returncode != 0, "the limit holds for all that runs inside"
        assert wait_until_answered(url).json()["answer"] == before
        first = state(found, container)["Pid"]
        kill(found, container)
        wait_for(lambda: state(found, container)["Pid"] not in (0, first), START_S)
        assert wait_until_answered(url).json()["answer"] == before


def test_the_largest_requests_at_once_stay_below_the_limit_of_the_compose_file(
    cpu: str, found: Engine
) -> None:
    with running(found, "--memory", "4g", "--memory-swap", "4g") as (container, url):
        wait_until_answered(url)
        end = time.monotonic() + 20
        done = load(url, 48, lambda _: time.monotonic() < end, frames=48)
        after = state(found, container)
        print(f"48 clients: {done.statuses}; memory {found('stats', '--no-stream', container)}")
        assert done.lost == [] and set(done.statuses) <= {200, 503} and not after["OOMKilled"]
        assert wait_until_answered(url).status_code == 200
