"""places=true: where cameras and tokens of an episode are, which frames they came from, and what was read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.service.conftest import running
from tests.service.episodes import ask, begin, push, walk

FRAMES = 4


@pytest.fixture(scope="module")
def memory(checkpoint: Path) -> Iterator[TestClient]:
    with running(checkpoint, depth_model="none", key_max_episodes=40, frame_cache_mib=16) as client:
        yield client


def walked(client: Any, **fields: Any) -> tuple[str, Any]:
    episode = begin(client, **fields)
    for at in range(FRAMES):
        assert push(client, episode, at).status_code == 200
    return episode, ask(client, episode, places=True).json()["episode"]


@pytest.mark.parametrize("method", ["cover", "seen", "alike", "voxel", "diverse", "still", "none"])
def test_every_token_that_is_read_is_told(memory: TestClient, method: str) -> None:
    budget = {} if method == "none" else {"max_visual_tokens": 24}
    _, used = walked(memory, merge_frames=method, method="none", **budget)
    shown = used["walk"]
    separators = used["visual_tokens"] - len(shown["tokens"])
    assert 0 <= separators <= FRAMES
    shares = [token["attention"] for token in shown["tokens"]]
    assert all(share > 0 for share in shares) and 0 < sum(shares) < 1
    frames = [token["frames"] for token in shown["tokens"]]
    assert all(own == sorted(set(own)) and own for own in frames)
    assert {own[0] for own in frames} <= set(range(FRAMES))
    if method in ("alike", "voxel"):
        assert max(map(len, frames)) > 1, "tokens of several frames merged"
    else:
        assert max(map(len, frames)) == 1


def test_cameras_and_places_are_in_the_world_of_the_poses(memory: TestClient) -> None:
    episode, used = walked(memory, merge_frames="none", method="none")
    cameras, tokens = used["walk"]["cameras"], used["walk"]["tokens"]
    for camera, (_, _, pose) in zip(cameras, walk(12)[:FRAMES], strict=True):
        matrix = np.array(pose)
        assert camera["position"] == pytest.approx(matrix[:3, 3], abs=1e-3)
        assert camera["forward"] == pytest.approx(matrix[:3, 2], abs=1e-3)
        assert camera["up"] == pytest.approx(-matrix[:3, 1], abs=1e-3)
    ahead = [
        np.dot(
            np.subtract(token["place"], cameras[token["frames"][0]]["position"]),
            cameras[token["frames"][0]]["forward"],
        )
        for token in tokens
        if token["place"]
    ]
    assert len(ahead) > 20 and min(ahead) > 0, "in front of the camera that saw them"
    state = memory.get(f"/episodes/{episode}?places=true").json()
    assert state["walk"]["cameras"] == cameras
    assert [one["place"] for one in state["walk"]["tokens"]] == [one["place"] for one in tokens]
    assert {one["attention"] for one in state["walk"]["tokens"]} == {None}
    assert "walk" not in memory.get(f"/episodes/{episode}").json()
    assert "walk" not in ask(memory, episode).json()["episode"]


def test_a_frame_without_a_pose_has_no_camera_and_no_places(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", method="none")
    push(memory, episode, 0, pose=...)
    walk_ = ask(memory, episode, places=True).json()["episode"]["walk"]
    assert walk_["cameras"] == [] and {token["place"] for token in walk_["tokens"]} == {None}
    empty = begin(memory, merge_frames="cover")
    assert memory.get(f"/episodes/{empty}?places=true").json()["walk"] == {"cameras": [], "tokens": []}


def test_places_change_nothing_but_what_is_told(memory: TestClient) -> None:
    episode, _ = walked(memory, merge_frames="cover", max_visual_tokens=24)
    plain, placed = ask(memory, episode).json(), ask(memory, episode, places=True).json()
    for name in ("answer", "usage", "merge", "finish_reason"):
        assert plain[name] == placed[name]
    lines = ask(memory, episode, places=True, stream=True).text.splitlines()
    (answer,) = [json.loads(line[6:]) for line in lines if line.startswith('data: {"answer"')]
    assert answer["episode"] == placed["episode"]


def test_new_poses_move_the_walk(memory: TestClient) -> None:
    episode, _ = walked(memory, merge_frames="cover", max_visual_tokens=24)
    moved = {str(at): [*np.ravel(walk(12)[at][2])] for at in range(FRAMES)}
    for pose in moved.values():
        pose[3] += 10
    response = memory.post(f"/episodes/{episode}/poses", json={"poses": moved})
    assert response.status_code == 200, response.text
    shown = memory.get(f"/episodes/{episode}?places=true").json()["walk"]
    for camera, (_, _, pose) in zip(shown["cameras"], walk(12)[:FRAMES], strict=True):
        assert camera["position"] == pytest.approx(np.array(pose)[:3, 3] + [10, 0, 0], abs=1e-3)


@pytest.mark.parametrize("places", ["maybe", ""])
def test_places_is_yes_or_no(memory: TestClient, places: str) -> None:
    episode = begin(memory, merge_frames="cover")
    response = memory.get(f"/episodes/{episode}", params={"places": places})
    assert response.status_code == 400 and response.json()["error"]["field"] == "places"
    response = memory.get(f"/episodes/{episode}", params={"place": "true"})
    assert response.json()["error"]["code"] == "unknown_field"
    push(memory, episode, 0)
    assert ask(memory, episode, places="maybe").json()["error"]["field"] == "places"


def test_confidence_is_told_as_without_an_episode(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover")
    push(memory, episode, 0)
    assert 0 < ask(memory, episode, confidence=True).json()["confidence"] <= 1
    assert "confidence" not in ask(memory, episode).json()
