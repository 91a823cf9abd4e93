"""Episodes over HTTP: begun, pushed to, asked, listed, deleted, and the same as their frames at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.conftest import running
from tests.service.episodes import RULE, ask, at_once, begin, push, text, walk
from tests.vlm.families import write_family
from tosa.frames import MERGE_FRAMES

GONE = "0" * 32


@pytest.fixture(scope="module")
def memory(checkpoint: Path) -> Iterator[TestClient]:
    """A service that takes some frames at once and estimates no depth."""
    with running(
        checkpoint, depth_model="none", max_images=6, key_max_episodes=40, frame_cache_mib=16
    ) as client:
        yield client


def error(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code
    return response.json()["error"]


@pytest.mark.parametrize("method", MERGE_FRAMES)
def test_frames_pushed_one_by_one_answer_as_the_same_frames_at_once(memory: TestClient, method: str) -> None:
    rule = {
        "merge_frames": method,
        "keep_ratio": 0.5,
        **({} if method == "none" else {"max_visual_tokens": 20}),
    }
    episode = begin(memory, **rule)
    for at in range(4):
        assert push(memory, episode, at).json()["frame"] == at
    pushed, together = ask(memory, episode).json(), at_once(memory, range(4), **rule).json()
    for name in ("answer", "usage", "merge", "views", "finish_reason"):
        assert pushed[name] == together[name], name
    one, other = pushed["episode"], together["episode"]
    assert one["id"] == episode and other["id"] is None
    assert {**one, "id": None} == other
    assert pushed["cached"] and pushed["timings_ms"]["vision"] is None
    if method != "none":
        assert one["visual_tokens"] <= 20 and (method == "seen" or one["visual_tokens"] == 20)


def test_one_frame_is_answered_as_without_an_episode(memory: TestClient) -> None:
    alone = memory.post(
        "/vqa",
        json={
            "images": [text(walk(12)[0][0])],
            "question": "how many cubes ?",
            "max_new_tokens": 4,
            "method": "none",
        },
    ).json()
    episode = begin(memory, merge_frames="cover", method="none")
    push(memory, episode, 0)
    remembered = ask(memory, episode).json()
    assert remembered["answer"] == alone["answer"] and remembered["usage"] == alone["usage"]


def test_what_a_push_says(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="seen", method="none")
    first, second = (push(memory, episode, at, timestamp=float(at)).json() for at in (0, 1))
    assert first["tokens"] == first["admitted"] == first["placed"] == first["held"]
    assert second["frames"] == 2 and second["held"] == first["held"] + second["admitted"]
    assert first["agreement"] is None and second["agreement"] > 0.9 and second["notes"] == []
    again = push(memory, episode, 1, timestamp=1.0).json()
    assert again["admitted"] <= 0.3 * again["tokens"] and again["cached"]
    state = memory.get(f"/episodes/{episode}").json()
    assert [frame["timestamp"] for frame in state["kept"]][:2] == [0.0, 1.0]
    assert state["frames"] == 3 and state["tokens"] == again["held"] and state["bytes"] > 0
    assert state["fields"]["merge_frames"] == "seen" and state["merge_frames"] == "seen"


def test_an_episode_is_streamed_as_it_is_answered(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", max_visual_tokens=20)
    push(memory, episode, 0)
    whole = ask(memory, episode).json()
    lines = ask(memory, episode, stream=True).text.splitlines()
    (answer,) = [json.loads(line[6:]) for line in lines if line.startswith('data: {"answer"')]
    assert answer["answer"] == whole["answer"] and answer["episode"] == whole["episode"]


def test_episodes_are_listed_and_deleted(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover")
    assert episode in memory.get("/episodes").json()["episodes"]
    assert memory.delete(f"/episodes/{episode}").json()["deleted"] == episode
    assert episode not in memory.get("/episodes").json()["episodes"]
    for response in (
        memory.get(f"/episodes/{episode}"),
        memory.delete(f"/episodes/{episode}"),
        ask(memory, episode),
        push(memory, episode, 0),
        memory.get("/episodes/../episodes/x"),
    ):
        error(response, 404, "episode_not_found")


def test_an_id_may_be_given_once(memory: TestClient) -> None:
    headers = {"X-Episode-ID": "ab" * 16}
    first = memory.post("/episodes", json={"merge_frames": "cover"}, headers=headers)
    assert first.json()["id"] == "ab" * 16
    error(memory.post("/episodes", json={}, headers=headers), 409, "episode_exists")
    other = memory.post("/episodes", json={}, headers={"X-Episode-ID": "../../etc"})
    assert other.status_code == 201 and other.json()["id"] != "../../etc"


def test_a_question_needs_a_frame(memory: TestClient) -> None:
    error(ask(memory, begin(memory, merge_frames="cover")), 409, "episode_empty")


def test_an_episode_that_drops_nothing_is_full_at_its_budget(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="none", max_visual_tokens=10, method="none")
    said = error(push(memory, episode, 0), 409, "episode_full")
    assert said["limit"] == 10 and said["field"] == "max_visual_tokens"
    assert memory.get(f"/episodes/{episode}").json()["frames"] == 0
    error(at_once(memory, range(3), merge_frames="none", max_visual_tokens=10), 409, "episode_full")


def test_frames_without_pose_or_depth_have_no_place_and_say_so(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", max_visual_tokens=20)
    posed = push(memory, episode, 0).json()
    unposed = push(memory, episode, 1, pose=...).json()
    bare = push(memory, episode, 2, depths=...).json()
    assert posed["placed"] > 0 == unposed["placed"] == bare["placed"]
    assert [note["code"] for note in bare["notes"]] == ["no_pose", "no_depth"]
    assert ask(memory, episode).json()["episode"]["visual_tokens"] == 20


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"pose": [1.0] * 16}, "bad_pose", "pose"),
        ({"pose": "identity"}, "bad_pose", "pose"),
        ({"intrinsics": {"fx": 1}}, "bad_intrinsics", "intrinsics"),
        ({"intrinsics": {"hfov": 200}}, "bad_intrinsics", "intrinsics"),
        ({"depth_intrinsics": {"hfov": -1}}, "bad_intrinsics", "depth_intrinsics"),
        ({"timestamp": "now"}, "bad_timestamp", "timestamp"),
        ({"question": "?"}, "unknown_field", "question"),
        ({"images": []}, "image_count", "image"),
        ({"images": [text(walk(12)[0][0])] * 2}, "image_count", "image"),
        ({"depths": ["AAAA"]}, "bad_depth", "depth"),
    ],
)
def test_a_wrong_frame_is_refused_and_changes_nothing(
    memory: TestClient, change: dict[str, Any], code: str, field: str
) -> None:
    episode = begin(memory, merge_frames="cover")
    said = error(push(memory, episode, 0, **change), 422, code)
    assert said["field"] == field
    assert memory.get(f"/episodes/{episode}").json()["frames"] == 0


def test_frames_come_in_the_order_of_their_time(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover")
    assert push(memory, episode, 0, timestamp=2.0).status_code == 200
    assert push(memory, episode, 1, timestamp=2.0).status_code == 200
    error(push(memory, episode, 2, timestamp=1.5), 422, "bad_timestamp")
    said = error(at_once(memory, range(2), merge_frames="cover", timestamps=[1.0, 0.5]), 422, "bad_timestamp")
    assert said["field"] == "timestamps[1]"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"merge_frames": "best"}, "bad_merge_frames", "merge_frames"),
        ({"merge_frames": "cover", "max_visual_tokens": 8}, "bad_merge_frames", "max_visual_tokens"),
        ({"merge_frames": "cover", "views": "video"}, "unsupported_views", "views"),
        ({"merge_frames": "cover", "poses": [None]}, "bad_merge_frames", "poses"),
        ({"merge_frames": "cover", "timestamps": [1.0]}, "bad_merge_frames", "timestamps"),
        ({"merge_frames": "cover", "convention": "blender"}, "bad_convention", "convention"),
        ({"merge_frames": "cover", "convention": ...}, "bad_convention", "convention"),
        ({"merge_frames": "cover", "intrinsics": ...}, "bad_intrinsics", "intrinsics"),
        ({"merge_frames": "cover", "poses": [[0.0] * 16, None]}, "bad_pose", "poses[0]"),
        ({"merge_frames": "cover", "poses": "[[0]]"}, "bad_pose", "poses"),
    ],
)
def test_wrong_geometry_with_a_question_is_refused(
    memory: TestClient, fields: dict[str, Any], code: str, field: str
) -> None:
    images, depths, own = zip(*walk(12)[:2], strict=True)
    files = {"images": list(map(text, images)), "depths": list(map(text, depths)), "poses": list(own)}
    body = {**RULE, "question": "?", **files, **fields}
    response = memory.post("/vqa", json={name: value for name, value in body.items() if value is not ...})
    assert error(response, 422, code)["field"] == field


def test_geometry_in_a_form(memory: TestClient) -> None:
    image, depth, pose = walk(12)[0]
    episode = begin(memory, merge_frames="cover", max_visual_tokens=20)
    parts: list[Any] = [("pose", (None, json.dumps(pose))), ("timestamp", (None, "1.5"))]
    parts += [("image", ("a.png", image)), ("depth", ("d.png", depth))]
    pushed = memory.post(f"/episodes/{episode}/frames", files=parts)
    assert pushed.status_code == 200 and pushed.json()["placed"] > 0, pushed.text


def test_a_wrong_convention_is_a_doubt(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", convention="opengl")
    notes = [push(memory, episode, at).json()["notes"] for at in range(5)][-1]
    assert "maybe_other_convention" in [note["code"] for note in notes]


def test_a_loop_closure_moves_what_is_remembered(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", max_visual_tokens=12)
    for at in range(4):
        push(memory, episode, at)
    before = memory.get(f"/episodes/{episode}").json()
    poses = {str(at): walk(12)[0][2] for at in range(4)}
    moved = memory.post(f"/episodes/{episode}/poses", json={"poses": poses})
    assert moved.status_code == 200 and moved.json()["tokens"] == before["tokens"]
    assert moved.json()["kept"] != before["kept"]
    said = error(
        memory.post(f"/episodes/{episode}/poses", json={"poses": {"4": poses["0"]}}), 422, "bad_pose"
    )
    assert said["limit"] == 3


def test_chat_names_an_episode(memory: TestClient) -> None:
    episode = begin(memory, merge_frames="cover", max_visual_tokens=20)
    push(memory, episode, 0)
    messages = [{"role": "user", "content": "how many cubes ?"}]
    body = {"messages": messages, "max_tokens": 4, "episode": episode}
    said = memory.post("/v1/chat/completions", json=body).json()
    assert said["choices"][0]["message"]["content"] == ask(memory, episode).json()["answer"]
    assert said["episode"]["id"] == episode
    missing = memory.post("/v1/chat/completions", json={**body, "episode": GONE})
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "episode_not_found"
    uri = f"data:image/png;base64,{text(walk(12)[0][0])}"
    both = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "?"}],
        }
    ]
    assert memory.post("/v1/chat/completions", json={**body, "messages": both}).status_code == 422
    assert memory.post("/v1/chat/completions", json={**body, "merge": {"method": "none"}}).status_code == 422


def test_estimated_depth_gives_no_places_and_says_so(checkpoint: Path, estimator: Path) -> None:
    with running(checkpoint, depth_model=estimator, depth_size_px=56, max_images=2) as client:
        episode = begin(client, merge_frames="cover", keep_ratio=0.5, method="tosa", depth="estimate")
        taken = push(client, episode, 0, depths=...).json()
        assert taken["placed"] == 0 and [note["code"] for note in taken["notes"]] == ["estimated_depth"]
        asked = at_once(client, range(2), merge_frames="cover", method="tosa", depths=[]).json()
        assert [note["code"] for note in asked["episode"]["notes"]] == ["estimated_depth"]


def test_a_model_without_a_token_for_each_place_takes_no_episode(tmp_path: Path) -> None:
    with running(write_family(tmp_path, "qwen2_5_vl"), depth_model="none") as client:
        said = error(client.post("/episodes", json={"merge_frames": "cover"}), 422, "bad_merge_frames")
        assert said["field"] == "merge_frames" and "LLaVA-OneVision, LLaVA and PaliGemma" in said["message"]
        refused = at_once(client, range(1), merge_frames="cover")
        assert error(refused, 422, "bad_merge_frames")["message"] == said["message"]
