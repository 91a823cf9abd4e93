"""A replica that is killed under load costs nobody a right answer; the end leaves nothing behind."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.ray.cluster import Cluster, running_cluster, starting_cluster, until
from tests.ray.questions import Asked, answer_of, bundled, expected

pytestmark = pytest.mark.ray


def test_a_killed_replica_loses_no_request_and_comes_back(cluster: Cluster) -> None:
    expected()
    before = set(cluster.replicas())
    with cluster.client() as client, ThreadPoolExecutor(2) as pool:
        requests = bundled() * 2
        answers = [pool.submit(one.post, client) for one in requests]
        until(lambda: sum(answer.done() for answer in answers) >= 8, 60)
        os.kill(next(iter(before)), signal.SIGKILL)
        ended = [_ending(one, answer.result()) for one, answer in zip(requests, answers, strict=True)]
    counted = Counter(ended)
    assert set(counted) <= {"right", "503"}
    assert counted["right"] >= 0.95 * len(ended)  # two clients have places even on one replica
    until(lambda: len(set(cluster.replicas()) - before) == 1 and len(cluster.replicas()) == 2, 90)
    with cluster.client() as client:
        until(lambda: _answers_everywhere(client), 90)


def test_the_end_finishes_what_runs_and_leaves_no_process() -> None:
    with running_cluster(replicas=1) as cluster, cluster.client() as client, ThreadPoolExecutor(4) as pool:
        assert len(cluster.pids()) > 3
        running = [pool.submit(request.post, client) for request in bundled()[:4]]
        time.sleep(0.1)
        assert cluster.stop() == 0
        assert {_ending(request, one.result()) for request, one in zip(bundled(), running, strict=False)} == {
            "right"
        }
        assert cluster.pids() == []


def test_an_end_during_the_start_leaves_no_process() -> None:
    with starting_cluster(replicas=1) as cluster:
        until(lambda: len(cluster.replicas()) == 1, 90)
        cluster.stop()
        assert cluster.pids() == []


def test_a_model_that_cannot_be_loaded_ends_the_command(tmp_path: object) -> None:
    with starting_cluster(replicas=1, TOSA_VQA_MODEL=str(tmp_path)) as cluster:
        assert cluster.process.wait(120) == 1
        assert "did not start" in cluster.log.read_text()
        assert cluster.pids() == []


def _ending(request: Asked, answer: httpx.Response) -> str:
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] in ("overloaded", "replica_lost", "not_ready")
        return "503"
    return "right" if answer_of(answer) == expected()[request] else "wrong"


def _answers_everywhere(client: httpx.Client) -> bool:
    return all(request.post(client).status_code == 200 for request in bundled()[:8])
