"""Replicas of the vision side share a language server: the answers of one process, codes, and recovery."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.language.stub_server import Behaviour, Stub, stub_server
from tests.ray.cluster import Cluster, running_cluster, until
from tests.ray.questions import answer_of, bundled, expected
from vlm import load_vlm
from vlm.probe import PROMPTS

pytestmark = pytest.mark.ray
WHOLE = Behaviour(max_model_len=4096)


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stub_server(load_vlm("room-tiny")) as stub:
        stub.behaviour = WHOLE
        yield stub


@pytest.fixture(scope="module")
def apart(stub: Stub) -> Iterator[Cluster]:
    """Two replicas without a language model, each with five places."""
    settings = {"LANGUAGE": "vllm", "LANGUAGE_URLS": stub.url, "MAX_QUEUE": "4", "MAX_BATCH": "1"}
    given = {f"TOSA_VQA_{name}": value for name, value in settings.items()}
    with running_cluster(replicas=2, **given) as cluster, cluster.client() as client:
        until(lambda: len(stub.requests) == 2 * PROMPTS, 60)  # both have checked its weights
        until(lambda: all(_ready(client) for _ in range(8)), 60)
        yield cluster


def test_answers_are_those_of_one_process(apart: Cluster, stub: Stub) -> None:
    requests = bundled()
    with apart.client() as client, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda one: answer_of(one.post(client)), requests))
    assert dict(zip(requests, answers, strict=True)) == expected()
    assert stub.answered == len(requests)


def test_a_client_that_leaves_ends_its_answer_at_the_server(apart: Cluster, stub: Stub) -> None:
    stub.behaviour = Behaviour(max_model_len=4096, holds_at=1)
    request = bundled()[0]
    try:
        with apart.client(2) as client, pytest.raises(httpx.ReadTimeout):
            request.post(client, cache="false")
        assert stub.running == 1
    finally:
        stub.behaviour = WHOLE
        stub.go.set()
    until(lambda: stub.running == 0 and stub.aborted == 1, 60)
    stub.go.clear()


def test_a_server_that_is_gone_costs_no_replica_and_comes_back(apart: Cluster, stub: Stub) -> None:
    replicas = set(apart.replicas())
    request = bundled()[0]
    stub.kill()
    with apart.client() as client:
        until(lambda: not any(_ready(client) for _ in range(8)), 60)
        for response in (client.get("/readyz"), request.post(client)):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "language_down")
            assert int(response.headers["retry-after"]) >= 1
        stub.start()
        until(lambda: all(_ready(client) for _ in range(8)), 60)
        assert answer_of(request.post(client)) == expected()[request]
    assert set(apart.replicas()) == replicas


def _ready(client: httpx.Client) -> bool:
    """Say whether the replica that happens to be asked is ready."""
    return client.get("/readyz").status_code == 200
