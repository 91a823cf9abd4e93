"""The profile of a vLLM server behind the encoder, started by the command of docs/containers.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.containers import bases
from bench.containers.asking import ask, wait_until_answered
from bench.containers.compose_file import services
from bench.containers.engine import Engine
from bench.containers.stack import URL, Stack
from tests.containers.page import shell, shown
from tests.loopback import START_S, wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.containers
COMPILED_S = 3 * START_S
"""How long vLLM may take, which compiles when it starts."""


@pytest.fixture(scope="module")
def vllm(found: Engine, cpu: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start vLLM for CPUs: packages of this machine, mounted into an image of Debian's under its name."""
    skip_without("packages of vllm", bases.VLLM.exists())
    skip_without("an image", found.has(services()["language"]["image"]))
    mounted = f"{bases.VLLM.resolve()}:/vllm:ro"
    with shell(found, tmp_path_factory.mktemp("bin"), mounted) as page:
        page(shown("COMPOSE_PROFILES=vllm"))
        yield Stack(found, "vllm", files=(bases.LANGUAGE_CPU,))


def test_vllm_answers_through_service_and_proxy_and_all_get_healthy(vllm: Stack) -> None:
    assert "language_queue" in wait_until_answered(URL, COMPILED_S).json()["timings_ms"]
    for part in ("language", "service-vllm"):
        (container,) = vllm.containers(part)
        wait_for(lambda container=container: vllm.health(container) == "healthy", START_S)


def test_a_vllm_server_that_is_killed_comes_back_and_is_ready_again(vllm: Stack) -> None:
    """Meanwhile the proxy says that nobody is ready."""
    answer = wait_until_answered(URL, COMPILED_S).json()["answer"]
    (proxy,), (language,) = vllm.containers("proxy"), vllm.containers("language")
    vllm.kill(language)
    wait_for(lambda: vllm.ready_replicas(proxy) == 0)
    refused = ask(URL)
    assert refused.status_code == 503 and refused.json()["error"]["code"] in ("not_ready", "language_down")
    assert wait_until_answered(URL, COMPILED_S).json()["answer"] == answer
    wait_for(lambda: vllm.ready_replicas(proxy) == 1)
