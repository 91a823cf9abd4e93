"""The profile of Ray, with two replicas, started by the command of docs/containers.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.containers.asking import load_during, wait_until_answered
from bench.containers.engine import Engine
from bench.containers.stack import URL, Stack
from tests.containers.page import shell, shown
from tests.loopback import START_S, wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def ray(found: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    skip_without("an image", found.has("tosa-vqa:ray"))
    with shell(found, tmp_path_factory.mktemp("bin")) as page:
        page(shown("COMPOSE_PROFILES=ray"))
        yield Stack(found, "ray")


def test_ray_answers_through_the_proxy_and_gets_healthy(ray: Stack) -> None:
    assert wait_until_answered(URL).json()["model"]["id"] == "room-tiny"
    (container,) = ray.containers("service-ray")
    wait_for(lambda: ray.health(container) == "healthy", START_S)
    assert ray.engine("top", container, "args").count("ray::ServeReplica") == 2


def test_ray_comes_back_when_it_is_killed(ray: Stack) -> None:
    answer = wait_until_answered(URL).json()["answer"]
    (container,) = ray.containers("service-ray")
    ray.kill(container)
    assert wait_until_answered(URL).json()["answer"] == answer


def test_ray_stops_under_load_without_losing_anything(ray: Stack) -> None:
    """The last of Ray's: the proxy answers what it took."""
    wait_until_answered(URL)
    done = load_during(lambda: ray("stop"), URL, 8, frames=4, after_s=3)
    print(f"compose stop of Ray: {done.statuses}, connections refused at the end: {done.unsent}")
    assert done.lost == [] and done.statuses[200] > 8 and set(done.statuses) <= {200, 503}
