"""Episodes behind the proxy: one replica for each, named by the proxy, and another one when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.episodes.store import ID
from service.settings import Settings
from tests.docker.conftest import FAST
from tests.docker.door import Names, opened
from tests.docker.replica import serving
from tests.docker.test_proxy_replicas import Fleet, fleet
from tests.loopback import free_port, wait_for
from tests.needs import skip_without
from tests.service.conftest import LIMITS, checkpoint
from tests.service.episodes import SHORT, ask, begin, push

__all__ = ["checkpoint", "fleet"]
IDS = [f"{number:032x}" for number in range(7, 23)]
QUESTION = [{"role": "user", "content": "how many cubes ?"}]


def replica_of(client: httpx.Client, method: str, path: str, **more: Any) -> str:
    return client.request(method, path, **more).json()["replica"]


def everything_about(client: httpx.Client, id_: str) -> set[str]:
    """Return the replicas that get the requests about an episode: by its address, and by a chat's body."""
    chat = {"model": "room-tiny", "messages": QUESTION, "episode": id_}
    return {
        replica_of(client, "POST", f"/episodes/{id_}/frames", content=b"x" * 100_000),
        replica_of(client, "POST", f"/episodes/{id_}/vqa", json=SHORT),
        replica_of(client, "POST", f"/episodes/{id_}/poses", json={}),
        replica_of(client, "GET", f"/episodes/{id_}"),
        replica_of(client, "DELETE", f"/episodes/{id_}"),
        replica_of(client, "POST", "/v1/chat/completions", json=chat),
    }


def test_all_requests_about_an_episode_go_to_one_replica(fleet: Fleet) -> None:
    with fleet.door.client() as client:
        chosen = {id_: everything_about(client, id_) for id_ in IDS}
        assert all(len(replicas) == 1 for replicas in chosen.values())
        assert set.union(*chosen.values()) == {"one", "two"}
        lost = next(id_ for id_ in IDS if chosen[id_] == {"one"})
        fleet.stubs["one"].is_ready = False
        wait_for(lambda: everything_about(client, lost) == {"two"})


def test_the_proxy_names_an_episode_that_begins_and_sends_it_where_it_will_be_asked(fleet: Fleet) -> None:
    with fleet.door.client() as client:
        named = set()
        for _ in range(8):
            own = {"X-Episode-ID": "0" * 32}  # a client's own is not taken
            replica = replica_of(client, "POST", "/episodes", json={}, headers=own)
            id_ = fleet.stubs[replica].headers["x-episode-id"]
            assert ID.fullmatch(id_) and id_ != "0" * 32
            assert everything_about(client, id_) == {replica}
            named.add(id_)
    assert len(named) == 8


@pytest.fixture
def replicas(checkpoint: Path, tmp_path: Path) -> Iterator[tuple[httpx.Client, list[ExitStack]]]:
    """Two replicas of the service that share a directory of episodes, behind the proxy."""
    skip_without("haproxy")
    names, port = Names(["127.0.0.2", "127.0.0.3"]), free_port()
    given = {**LIMITS, "depth_model": "none", "model": str(checkpoint), "drain_pause_s": 0}
    with ExitStack() as stack:
        stack.callback(names.close)
        stops = [stack.enter_context(ExitStack()) for _ in names.addresses]
        for stop, address in zip(stops, list(names.addresses), strict=True):
            app = create_app(Settings(**given, episodes_dir=tmp_path / "episodes"))
            stop.enter_context(serving(app, address, port))
        door = stack.enter_context(opened(names, port, **FAST))
        wait_for(door.is_up)
        client = stack.enter_context(door.client())
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield client, stops


@pytest.mark.long
def test_another_replica_goes_on_with_an_episode_of_one_that_ended(
    replicas: tuple[httpx.Client, list[ExitStack]],
) -> None:
    client, stops = replicas
    episodes = [begin(client, merge_frames="cover", max_visual_tokens=20) for _ in range(6)]
    for episode in episodes:
        for at in range(2):
            assert push(client, episode, at, timestamp=float(at)).json()["frame"] == at
    before = [ask(client, episode).json() for episode in episodes]
    chat = {"messages": QUESTION, "max_tokens": 4, "episode": episodes[0]}
    said = client.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    assert said == before[0]["answer"]
    stops[0].close()
    wait_for(lambda: all(client.get(f"/episodes/{episode}").status_code == 200 for episode in episodes))
    for episode, answer in zip(episodes, before, strict=True):
        again = ask(client, episode).json()
        assert again["answer"] == answer["answer"] and again["episode"]["kept"] == answer["episode"]["kept"]
        assert push(client, episode, 2, timestamp=2.0).json()["frame"] == 2
    assert set(client.get("/episodes").json()["episodes"]) == set(episodes)
