"""Episodes in a directory: every frame is on disk before it is acknowledged, and nothing is half written.

An episode is a folder: `episode.json`, one `frame-N.safetensors` for each frame since the last
`memory-N.safetensors`, which holds the state after N frames. Reading it plays the frames back, so that the
state is the same. A file is written beside its place, flushed, and renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from depth import Note
from service.episodes.episode import Episode, StoredFrame
from tosa.frames import FrameTokens

FRAMES_PER_STATE = 64
"""Frames after which the state is written, so that reading back takes a bounded time."""
_ABOUT, _LOCK = "episode.json", "lock"


class EpisodeFiles:
    """Keep episodes in the folders of a directory, which several processes may share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def ids(self) -> list[str]:
        """Return the episodes that are there."""
        return sorted(path.parent.name for path in self._directory.glob(f"*/{_ABOUT}"))

    def about(self, id_: str) -> dict[str, Any] | None:
        """Return what `begin` wrote, None without such an episode."""
        try:
            return json.loads((self._folder(id_) / _ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def begin(self, id_: str, about: dict[str, Any]) -> None:
        """Write an episode without frames. Raises OSError."""
        self._folder(id_).mkdir(parents=True, exist_ok=True)
        _write(self._folder(id_) / _ABOUT, json.dumps(about).encode())
        _flush(self._directory)

    @contextmanager
    def writing(self, id_: str) -> Iterator[None]:
        """Keep other writers of an episode out, in this process and others."""
        with (self._folder(id_) / _LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self, id_: str, number: int, frame: StoredFrame, episode: Episode) -> None:
        """Write frame `number`, and the state after it once in many frames. Raises OSError."""
        if (number + 1) % FRAMES_PER_STATE:
            _write(self._folder(id_) / f"frame-{number}.safetensors", _frame_bytes(frame))
        else:
            self.write_state(id_, episode)

    def write_state(self, id_: str, episode: Episode) -> None:
        """Write the state of an episode, then delete the frames that it holds. Raises OSError."""
        tensors, said = episode.state()
        folder = self._folder(id_)
        place = folder / f"memory-{episode.frames}.safetensors"
        owned = {name: tensor.contiguous() for name, tensor in tensors.items()}
        _write(place, save(owned, {"said": json.dumps(said)}))
        for path, number in _numbered(folder, "frame"):
            if number < episode.frames:
                path.unlink(missing_ok=True)
        for path, number in _numbered(folder, "memory"):
            if number < episode.frames:
                path.unlink(missing_ok=True)

    def version(self, id_: str) -> tuple[int, int]:
        """Return how many frames are on disk, and when the last state was written, in ns."""
        folder = self._folder(id_)
        states = _numbered(folder, "memory")
        frames = [number + 1 for _, number in _numbered(folder, "frame")]
        last = max(states, key=lambda one: one[1], default=None)
        written = 0 if last is None else _written_ns(last[0])
        return max([*frames, 0 if last is None else last[1]], default=0), written

    def read(self, id_: str, episode: Episode) -> None:
        """Play an episode back into an empty one. The caller keeps other writers out."""
        folder = self._folder(id_)
        for half in folder.glob(".*.tmp"):  # of writers that were killed
            half.unlink(missing_ok=True)
        state = max(_numbered(folder, "memory"), key=lambda one: one[1], default=None)
        if state is not None:
            tensors, said = _read(state[0])
            episode.restore(tensors, json.loads(said["said"]))
        for path, number in sorted(_numbered(folder, "frame"), key=lambda one: one[1]):
            if number >= episode.frames:
                episode.push(_frame_of(path))

    def touch(self, id_: str) -> None:
        """Note that an episode was used now."""
        try:
            os.utime(self._folder(id_) / _ABOUT)
        except OSError:
            return  # deleted meanwhile

    def used(self, id_: str) -> float:
        """Return when an episode was used last, in seconds since 1970; 0 if it is gone."""
        return _written_ns(self._folder(id_) / _ABOUT) / 1e9

    def delete(self, id_: str) -> None:
        """Delete an episode."""
        (self._folder(id_) / _ABOUT).unlink(missing_ok=True)  # first: it is gone, whatever fails then
        shutil.rmtree(self._folder(id_), ignore_errors=True)

    def _folder(self, id_: str) -> Path:
        return self._directory / id_


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _numbered(folder: Path, kind: str) -> list[tuple[Path, int]]:
    return [(path, int(path.stem.partition("-")[2])) for path in folder.glob(f"{kind}-*.safetensors")]


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, also after the power fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _flush(path.parent)


def _flush(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _frame_bytes(frame: StoredFrame) -> bytes:
    tokens = frame.tokens
    tensors = {
        "features": tokens.features.contiguous(),
        "source": tokens.source.contiguous(),
        "points": tokens.points.contiguous(),
        "is_edge": tokens.is_edge.contiguous(),
        "separator": frame.separator.contiguous(),
    }
    if tokens.pose is not None:
        tensors["pose"] = tokens.pose.contiguous()
    said = {
        "grid": tokens.grid,
        "camera": tokens.camera,
        "timestamp": tokens.timestamp,
        "size": frame.size,
        "has_depth": frame.has_depth,
        "notes": [(one.code, one.sentence) for one in frame.notes],
    }
    return save(tensors, {"said": json.dumps(said)})


def _frame_of(path: Path) -> StoredFrame:
    tensors, metadata = _read(path)
    said = json.loads(metadata["said"])
    tokens = FrameTokens(
        tensors["features"],
        tensors["source"],
        tensors["points"],
        tensors["is_edge"],
        tensors.get("pose"),
        (said["grid"][0], said["grid"][1]),
        tuple(said["camera"]),
        said["timestamp"],
    )
    notes = tuple(Note(code, sentence) for code, sentence in said["notes"])
    size = (said["size"][0], said["size"][1])
    return StoredFrame(tokens, tensors["separator"], size, said["has_depth"], notes)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
