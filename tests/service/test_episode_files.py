"""Episodes in a directory: there after a restart, shared by replicas, and never half written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from depth import Note
from service.episodes import files
from service.episodes.episode import Episode, StoredFrame
from service.episodes.files import EpisodeFiles
from service.episodes.store import EpisodeStore
from service.errors import ServiceError
from service.request.schemas import EpisodeFields
from service.settings import Settings
from tests.service.conftest import running
from tests.service.episodes import ask, begin, push
from tests.tosa.frames.walks import walk
from tosa.frames import FrameRule

MIB = 2**20


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeVlm:
    """What a store asks of a model."""

    id, revision, dtype = "toy", "1", torch.float32

    class family:
        separator_rows = 1


VLM: Any = FakeVlm()
OTHER: Any = type("OtherVlm", (FakeVlm,), {"revision": "2"})()


def stored(at: int, number: int = 12) -> StoredFrame:
    return StoredFrame(walk(number)[at], torch.ones(1, 16), (60, 80), True, (Note("a_note", "A note."),))


def store(folder: Path | None, clock: Clock, **settings: Any) -> EpisodeStore:
    return EpisodeStore(Settings(episodes_dir=folder, **settings), clock)


def fields(**more: Any) -> EpisodeFields:
    return EpisodeFields(**{"merge_frames": "cover", "max_visual_tokens": 60, **more})


@pytest.fixture(params=["memory", "files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "files" else None


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def code_of(error: pytest.ExceptionInfo[ServiceError]) -> str:
    return error.value.code


@pytest.mark.parametrize("method", ["seen", "cover", "still"])
def test_what_was_written_is_read_back_as_it_was(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FRAMES_PER_STATE", 4)
    clock = Clock()
    first = store(tmp_path, clock)
    id_ = first.begin(VLM, "a", fields(merge_frames=method)).id
    assert id_ is not None
    for at in range(7):
        first.push(VLM, "a", id_, stored(at), None)
        again = store(tmp_path, clock).get(VLM, "a", id_)
        one, other = first.get(VLM, "a", id_), again
        assert torch.equal(one.kept().leader, other.kept().leader)
        assert torch.equal(one.kept().features, other.kept().features)
        assert one.described(one.kept()) == other.described(other.kept())
    names = sorted(path.name for path in (tmp_path / id_).iterdir() if path.suffix == ".safetensors")
    assert names == [
        "frame-4.safetensors",
        "frame-5.safetensors",
        "frame-6.safetensors",
        "memory-4.safetensors",
    ]


def test_replicas_that_share_a_directory_see_each_others_frames(tmp_path: Path, clock: Clock) -> None:
    one, other = store(tmp_path, clock), store(tmp_path, clock)
    id_ = one.begin(VLM, None, fields()).id
    assert id_ is not None
    for at in range(6):
        _, admitted = (one, other)[at % 2].push(VLM, None, id_, stored(at), None)
        assert admitted.frame == at
    assert one.get(VLM, None, id_).frames == other.get(VLM, None, id_).frames == 6
    other.delete(None, id_)
    with pytest.raises(ServiceError) as gone:
        one.get(VLM, None, id_)
    assert code_of(gone) == "episode_not_found" and list(tmp_path.iterdir()) == []


def test_new_poses_are_written_too(tmp_path: Path, clock: Clock) -> None:
    one, other = store(tmp_path, clock), store(tmp_path, clock)
    id_ = one.begin(VLM, None, fields()).id
    assert id_ is not None
    for at in range(4):
        one.push(VLM, None, id_, stored(at), None)
    before = other.get(VLM, None, id_).memory.placed().points
    pose = walk(12)[0].pose
    assert pose is not None
    moved = one.move(VLM, None, id_, lambda episode: episode.move({3: pose})).memory.placed().points
    assert not torch.equal(before, moved)
    assert torch.equal(other.get(VLM, None, id_).memory.placed().points, moved)


def test_a_frame_that_cannot_be_written_is_not_there(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = store(tmp_path, clock)
    id_ = held.begin(VLM, None, fields()).id
    assert id_ is not None
    held.push(VLM, None, id_, stored(0), None)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _full)
        with pytest.raises(ServiceError) as refused:
            held.push(VLM, None, id_, stored(1), None)
    assert code_of(refused) == "episode_storage" and refused.value.retry_after_s == 1
    assert held.get(VLM, None, id_).frames == 1
    assert held.push(VLM, None, id_, stored(1), None)[1].frame == 1


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_a_crash_left_half_written_is_not_read(tmp_path: Path, clock: Clock) -> None:
    held = store(tmp_path, clock)
    id_ = held.begin(VLM, None, fields()).id
    assert id_ is not None
    held.push(VLM, None, id_, stored(0), None)
    (tmp_path / id_ / ".frame-1.safetensors.7.tmp").write_bytes(b"half")
    assert store(tmp_path, clock).get(VLM, None, id_).frames == 1


def test_keys_do_not_see_each_others_episodes(folder: Path | None, clock: Clock) -> None:
    held = store(folder, clock)
    id_ = held.begin(VLM, "a", fields()).id
    assert id_ is not None and held.ids("a") == [id_] and held.ids("b") == []
    for look in (
        lambda: held.get(VLM, "b", id_),
        lambda: held.delete("b", id_),
        lambda: held.push(VLM, "b", id_, stored(0), None),
    ):
        with pytest.raises(ServiceError) as refused:
            look()
        assert code_of(refused) == "episode_not_found"


def test_a_key_has_so_many_episodes(folder: Path | None, clock: Clock) -> None:
    held = store(folder, clock, key_max_episodes=2)
    ids = [held.begin(VLM, "a", fields()).id for _ in range(2)]
    with pytest.raises(ServiceError) as refused:
        held.begin(VLM, "a", fields())
    assert code_of(refused) == "episode_limit" and refused.value.limit == 2
    assert ids[0] is not None
    held.begin(VLM, "b", fields())
    held.delete("a", ids[0])
    held.begin(VLM, "a", fields())


def test_an_episode_that_nobody_uses_is_deleted(folder: Path | None) -> None:
    clock = Clock()
    import time

    clock.now = time.time()
    held = store(folder, clock, episode_idle_s=100)
    old, used = (held.begin(VLM, None, fields()).id for _ in range(2))
    assert old is not None and used is not None
    clock.now += 60
    held.get(VLM, None, used)
    if folder is not None:
        os.utime(folder / used / "episode.json", (clock.now, clock.now))
    clock.now += 60
    assert held.ids(None) == [used]
    assert folder is None or [path.name for path in folder.iterdir()] == [used]


def test_the_memory_of_a_key_is_bounded(clock: Clock) -> None:
    held = store(None, clock, key_episodes_mib=40_000 / MIB)
    id_ = held.begin(VLM, "a", fields()).id
    assert id_ is not None
    with pytest.raises(ServiceError) as refused:
        for at in range(11):
            held.push(VLM, "a", id_, stored(at), None)
    assert code_of(refused) == "episode_memory" and 0 < held.bytes <= 40_000
    _, admitted = held.push(VLM, "b", held.begin(VLM, "b", fields()).id or "", stored(0), None)
    assert admitted.frame == 0, "another key has room"


def test_with_a_directory_others_are_let_go_of_and_read_again(tmp_path: Path, clock: Clock) -> None:
    held = store(tmp_path, clock, key_episodes_mib=40_000 / MIB)
    ids = [held.begin(VLM, "a", fields()).id or "" for _ in range(4)]
    for at in range(2):
        for id_ in ids:
            clock.now += 1
            held.push(VLM, "a", id_, stored(at), None)
    assert held.number < 4 and held.bytes <= 40_000
    assert [held.get(VLM, "a", id_).frames for id_ in ids] == [2] * 4


def test_another_model_does_not_read_these_tokens(tmp_path: Path, clock: Clock) -> None:
    id_ = store(tmp_path, clock).begin(VLM, None, fields()).id
    assert id_ is not None
    with pytest.raises(ServiceError) as refused:
        store(tmp_path, clock).get(OTHER, None, id_)
    assert code_of(refused) == "episode_other_model"


@pytest.mark.parametrize("id_", ["", "..", "a" * 31, "A" * 32, "../" + "a" * 32, "a" * 32 + "/x"])
def test_an_id_is_no_path(tmp_path: Path, clock: Clock, id_: str) -> None:
    with pytest.raises(ServiceError) as refused:
        store(tmp_path, clock).get(VLM, None, id_)
    assert code_of(refused) == "episode_not_found"


def test_files_of_an_episode_begin_and_end(tmp_path: Path) -> None:
    kept = EpisodeFiles(tmp_path / "new" / "folder")
    assert kept.ids() == [] and kept.about("a" * 32) is None and kept.used("a" * 32) == 0
    kept.begin("a" * 32, {"owner": None})
    assert kept.ids() == ["a" * 32] and kept.version("a" * 32) == (0, 0)
    episode = Episode(FrameRule("cover", 60), 1000, fields())
    with kept.writing("a" * 32):
        kept.add("a" * 32, episode.push(stored(0)).frame, stored(0), episode)
    assert kept.version("a" * 32)[0] == 1
    kept.delete("a" * 32)
    assert kept.ids() == []


def test_episodes_outlive_the_service(checkpoint: Path, tmp_path: Path) -> None:
    settings = {"depth_model": "none", "episodes_dir": tmp_path}
    with running(checkpoint, **settings) as client:
        episode = begin(client, merge_frames="cover", max_visual_tokens=20)
        for at in range(3):
            push(client, episode, at, timestamp=float(at))
        before = ask(client, episode).json()
    with running(checkpoint, **settings) as client:
        after = ask(client, episode).json()
        assert after["answer"] == before["answer"] and after["usage"] == before["usage"]
        assert after["episode"]["kept"] == before["episode"]["kept"]
        assert push(client, episode, 3, timestamp=3.0).json()["frame"] == 3
