"""The stack of docker/compose.yaml: started, looked into, broken part by part, and stopped under load."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from bench.containers.asking import load_during, wait_until_answered
from bench.containers.engine import Engine
from bench.containers.stack import URL, Stack, seconds_since, started
from tests.docker import recipes
from tests.loopback import START_S, wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.containers
PARTS = ("proxy", "service", "prometheus")
SERVICES = recipes.compose()["services"]


@pytest.fixture(scope="module")
def stack(found: Engine, cpu: str) -> Iterator[Stack]:
    images = [SERVICES[part]["image"] for part in PARTS]
    skip_without("an image", all(map(found.has, images)))
    began = time.monotonic()
    with started(found, "service") as stack:
        reply = wait_until_answered(URL)
        print(f"compose up to the first answer: {seconds_since(began)} s")
        assert reply.json()["model"]["id"] == "room-tiny"
        yield stack


def test_every_part_gets_healthy(stack: Stack) -> None:
    for part in PARTS:
        (container,) = stack.containers(part)
        wait_for(lambda container=container: stack.health(container) == "healthy")


def test_every_container_is_locked_in_as_the_file_says(stack: Stack) -> None:
    for part in PARTS:
        (container,) = stack.containers(part)
        host = json.loads(stack.inspect(container, "{{json .HostConfig}}"))
        assert host["ReadonlyRootfs"] and host["Init"] and not host["Privileged"], part
        assert host["Memory"] == memory_bytes(SERVICES[part]["mem_limit"]) and host["PidsLimit"] == 256
        assert stack.inspect(container, "{{.Config.User}}") == SERVICES[part]["user"]
        status = stack.engine("exec", container, "cat", "/proc/1/status")
        facts = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0 and facts["NoNewPrivs"] == "1"
        for folder in ("/", "/etc", "/usr"):
            wrote = stack.engine.tried("exec", container, "sh", "-c", f"echo x > {folder}/x")
            assert wrote.returncode != 0, f"{part} writes to {folder}"


def memory_bytes(limit: str) -> int:
    return int(limit[:-1]) * {"m": 2**20, "g": 2**30}[limit[-1]]


def test_prometheus_finds_the_service_and_the_proxy(stack: Stack) -> None:
    (container,) = stack.containers("prometheus")

    def up() -> dict[str, str]:
        found = json.loads(stack.get(container, "http://127.0.0.1:9090/api/v1/query?query=up"))
        return {one["metric"]["job"]: one["value"][1] for one in found["data"]["result"]}

    wait_for(lambda: up() == {"tosa-vqa": "1", "proxy": "1"})


def test_the_inner_network_has_no_way_out(stack: Stack) -> None:
    (service,) = stack.containers("service")
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    tried = stack.engine.tried("exec", service, "python", "-I", "-c", code)
    assert tried.returncode != 0 and "OSError: [Errno 101]" in tried.stderr, tried.stderr


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back(stack: Stack, part: str) -> None:
    answer = wait_until_answered(URL).json()["answer"]
    (container,) = stack.containers(part)
    stack.kill(container)
    wait_for(lambda: stack.health(container) == "healthy", START_S)
    assert wait_until_answered(URL).json()["answer"] == answer


def test_the_log_of_a_container_ends_at_its_limit(found: Engine, cpu: str) -> None:
    limits = ("--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=3")
    code = "for line in range(200_000): print('x' * 60)"
    container = found("create", *limits, cpu, "python", "-c", code)
    try:
        found("start", "--attach", container)
        kept = found("logs", container, timeout_s=300)
        assert 0 < len(kept) < 4 * 2**20 < 200_000 * 60
    finally:
        found("rm", "--force", container)


def test_stop_under_load_loses_nothing(stack: Stack) -> None:
    """The last of this file: the proxy answers what it took, and takes no more."""
    wait_until_answered(URL)
    done = load_during(lambda: stack("stop"), URL, 8, frames=4, after_s=3)
    print(f"compose stop: {done.statuses}, connections refused at the end: {done.unsent}")
    assert done.lost == []
    assert done.statuses[200] > 8 and set(done.statuses) <= {200, 503}
