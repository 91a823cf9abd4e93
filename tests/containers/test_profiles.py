"""The other profiles, started by the commands of docs/containers.md: Ray's replicas, and a vLLM server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.containers import bases
from bench.containers.asking import ask, load_during, wait_until_answered
from bench.containers.compose_file import services
from bench.containers.engine import Engine, kill
from bench.containers.stack import URL, Stack
from tests.containers.page import shell, shown
from tests.loopback import START_S, wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def ray(found: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    skip_without("an image", found.has("tosa-vqa:ray"))
    with shell(found, tmp_path_factory.mktemp("bin")) as page:
        page(shown("--profile ray"))
        yield Stack(found, "ray")


def test_ray_answers_through_the_proxy_and_gets_healthy(ray: Stack) -> None:
    assert wait_until_answered(URL).json()["model"]["id"] == "room-tiny"
    (container,) = ray.containers("service-ray")
    wait_for(lambda: ray.health(container) == "healthy", START_S)
    assert ray.engine("top", container, "args").count("ray::ServeReplica") == 2


def test_ray_comes_back_when_it_is_killed(ray: Stack) -> None:
    answer = wait_until_answered(URL).json()["answer"]
    (container,) = ray.containers("service-ray")
    killed(ray, container)
    assert wait_until_answered(URL).json()["answer"] == answer


def killed(stack: Stack, container: str) -> None:
    """Kill a container and wait until the engine has started it again."""
    first = stack.inspect(container, "{{.State.Pid}}")
    kill(stack.engine, container)
    wait_for(lambda: stack.inspect(container, "{{.State.Pid}}") not in ("0", first), START_S)


def test_ray_stops_under_load_without_losing_anything(ray: Stack) -> None:
    """The last of Ray's: the proxy answers what it took."""
    wait_until_answered(URL)
    done = load_during(lambda: ray("stop"), URL, 8, frames=4, after_s=3)
    print(f"compose stop of Ray: {done.statuses}, connections refused at the end: {done.unsent}")
    assert done.lost == [] and done.statuses[200] > 8 and set(done.statuses) <= {200, 503}


@pytest.fixture(scope="module")
def vllm(found: Engine, cpu: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start vLLM for CPUs: packages of this machine, mounted into an image of Debian's under its name."""
    skip_without("packages of vllm", bases.VLLM.exists())
    skip_without("an image", found.has(services()["language"]["image"]))
    mounted = f"{bases.VLLM.resolve()}:/vllm:ro"
    with shell(found, tmp_path_factory.mktemp("bin"), mounted) as page:
        page(shown("--profile vllm"))
        yield Stack(found, "vllm", files=(bases.LANGUAGE_CPU,))


def test_vllm_answers_through_service_and_proxy_and_all_get_healthy(vllm: Stack) -> None:
    assert "language_queue" in wait_until_answered(URL).json()["timings_ms"]
    for part in ("language", "service-vllm"):
        (container,) = vllm.containers(part)
        wait_for(lambda container=container: vllm.health(container) == "healthy", START_S)


def test_a_vllm_server_that_is_killed_comes_back_and_is_ready_again(vllm: Stack) -> None:
    """Meanwhile the proxy says that nobody is ready."""
    answer = wait_until_answered(URL).json()["answer"]
    (proxy,), (language,) = vllm.containers("proxy"), vllm.containers("language")
    killed(vllm, language)
    wait_for(lambda: vllm.ready_replicas(proxy) == 0)
    refused = ask(URL)
    assert refused.status_code == 503 and refused.json()["error"]["code"] in ("not_ready", "language_down")
    assert wait_until_answered(URL).json()["answer"] == answer
    wait_for(lambda: vllm.ready_replicas(proxy) == 1)
