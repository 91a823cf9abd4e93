"""Replicas behind Ray answer as one process does, however many ask at once, and send a frame to its home."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import httpx
import pytest

from tests.ray.cluster import Cluster
from tests.ray.questions import Asked, answer_of, bundled, expected

pytestmark = pytest.mark.ray


def test_answers_are_those_of_one_process(cluster: Cluster) -> None:
    with cluster.client() as client:
        assert {request: answer_of(request.post(client)) for request in bundled()} == expected()


def test_interleaved_modes_do_not_mix(cluster: Cluster) -> None:
    def ask(request: Asked) -> bool:
        return answer_of(request.post(client)) == expected()[request]

    with cluster.client() as client, ThreadPoolExecutor(3) as pool:
        assert all(pool.map(ask, bundled()[::-1]))


def test_more_than_there_are_places_for_is_refused_with_a_time_to_come_back(cluster: Cluster) -> None:
    with cluster.client() as client, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda request: request.post(client), bundled()[:32]))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < len(answers)
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "overloaded"


def test_a_frame_goes_where_it_is_known(cluster: Cluster) -> None:
    """Two replicas: without a home, four frames asked six times each would meet a stranger somewhere."""
    with cluster.client() as client:
        for request in _frames():
            known = [_is_cached(request.post(client, max_new_tokens=str(n))) for n in range(2, 8)]
            assert known[1:] == [True] * 5


def test_a_frame_without_a_home_meets_strangers(cluster: Cluster) -> None:
    """The twin: a name that is new every time, as a careless client may send it, sends the frame anywhere."""
    keep = {"method": "tome", "keep_ratio": "0.3"}
    with cluster.client() as client:
        first = [Asked(request.frame, request.question, tuple(keep.items())) for request in _frames()]
        known = [
            _is_cached(request.post(client, headers={"X-Frame-ID": token_hex(8)}))
            for request in first
            for _ in range(6)
        ]
    assert known.count(False) > len(first)


def test_a_client_may_name_the_frame_itself(cluster: Cluster) -> None:
    keep = (("keep_ratio", "0.35"), ("method", "tome"))
    with cluster.client() as client:
        requests = [Asked(one.frame, one.question, keep) for one in _frames()]
        for one in requests:
            known = [_is_cached(one.post(client, headers={"X-Frame-ID": one.frame})) for _ in range(4)]
            assert known[1:] == [True] * 3


def _frames() -> list[Asked]:
    return list(
        {request.frame: request for request in bundled() if ("method", "tome") in request.mode}.values()
    )


def _is_cached(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return answer.json()["cached"]
