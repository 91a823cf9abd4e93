"""The episodes of a process: begun, found, counted by key, and deleted when nobody uses them."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from weakref import WeakValueDictionary

from depth.geometry import SampledFrame
from service.episodes.episode import Episode, StoredFrame
from service.episodes.files import EpisodeFiles
from service.errors import ServiceError
from service.request.schemas import EpisodeFields
from service.settings import Settings
from tosa.frames import Admitted
from vlm import Vlm
from vlm.dtypes import short

log = logging.getLogger("tosa_vqa")
ID = re.compile(r"[0-9a-f]{32}")
TRIES = 8
"""Of reading an episode that others write to at the same time."""


class EpisodeStore:
    """Hold the episodes of all keys; any thread may call. clock: seconds since 1970.

    With a directory, memory is a cache of what is there: other processes may write to it, too.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._episodes: dict[str, Episode] = {}
        self._versions: dict[str, tuple[int, int]] = {}
        self._files = None if settings.episodes_dir is None else EpisodeFiles(settings.episodes_dir)
        self._lock = RLock()
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def number(self) -> int:
        """Return how many episodes are in memory."""
        return len(self._episodes)

    @property
    def bytes(self) -> int:
        """Return the memory of all episodes."""
        with self._lock:
            return sum(episode.nbytes for episode in self._episodes.values())

    def writer(self, id_: str) -> asyncio.Lock:
        """Return the lock by which frames of an episode are encoded and taken in one after another."""
        return self._writers.setdefault(id_, asyncio.Lock())

    def begin(self, vlm: Vlm, owner: str | None, fields: EpisodeFields, id_: str | None = None) -> Episode:
        """Begin an episode. Raises ServiceError: episode_limit, episode_exists, episode_storage."""
        self.sweep()
        with self._lock:
            most = self._settings.key_max_episodes
            if len(self._ids(owner)) >= most:
                raise ServiceError("episode_limit", limit=most)
            id_ = secrets.token_hex(16) if id_ is None else id_
            if id_ in self._episodes or (self._files is not None and self._files.about(id_) is not None):
                raise ServiceError("episode_exists", field="X-Episode-ID")
            episode = self._empty(vlm, owner, fields, id_, self._clock())
            if self._files is not None:
                about = {
                    "owner": owner,
                    "fields": fields.model_dump(mode="json", exclude_unset=True),
                    "model": _model_of(vlm),
                    "created": episode.created,
                }
                with _stored(id_):
                    self._files.begin(id_, about)
            self._episodes[id_] = episode
            if self._files is not None:
                self._versions[id_] = self._files.version(id_)
            return episode

    def get(self, vlm: Vlm, owner: str | None, id_: str) -> Episode:
        """Return an episode as it is now, read from disk if another process knows more of it.

        Raises ServiceError: episode_not_found, also for that of another key; episode_other_model.
        """
        self.sweep()
        if self._files is None or not ID.fullmatch(id_):
            return self._held(owner, id_)
        for _ in range(TRIES):
            if not self._is_behind(id_):
                return self._held(owner, id_)
            with _found(), self._files.writing(id_):
                self._read(vlm, id_)
        raise ServiceError("episode_storage", retry_after_s=1)

    def push(
        self, vlm: Vlm, owner: str | None, id_: str, frame: StoredFrame, sample: SampledFrame | None
    ) -> tuple[Episode, Admitted]:
        """Take in a frame, and write it before this returns.

        Raises ServiceError: as `get`, episode_full, episode_memory, episode_storage.
        """
        if self._files is None:
            episode = self.get(vlm, owner, id_)
            self._require_room(episode, frame)
            return episode, episode.push(frame, sample)
        self.get(vlm, owner, id_)
        with _stored(id_), self._files.writing(id_):
            self._read(vlm, id_)  # what another process wrote meanwhile
            episode = self._held(owner, id_)
            self._require_room(episode, frame)
            admitted = episode.push(frame, sample)
            try:
                self._files.add(id_, admitted.frame, frame, episode)
            except OSError:
                self._forget(id_)  # what is on disk counts
                raise
            self._versions[id_] = self._files.version(id_)
            return episode, admitted

    def move(self, vlm: Vlm, owner: str | None, id_: str, change: Callable[[Episode], None]) -> Episode:
        """Change the poses of an episode, and write it. Raises ServiceError, and what `change` raises."""
        if self._files is None:
            episode = self.get(vlm, owner, id_)
            change(episode)
            return episode
        self.get(vlm, owner, id_)
        with _stored(id_), self._files.writing(id_):
            self._read(vlm, id_)
            episode = self._held(owner, id_)
            change(episode)
            self._files.write_state(id_, episode)
            self._versions[id_] = self._files.version(id_)
            return episode

    def ids(self, owner: str | None) -> list[str]:
        """Return the episodes of a key."""
        self.sweep()
        with self._lock:
            return self._ids(owner)

    def delete(self, owner: str | None, id_: str) -> None:
        """Delete an episode. Raises ServiceError (episode_not_found)."""
        with self._lock:
            if id_ not in self._ids(owner):
                raise ServiceError("episode_not_found")
            self._forget(id_)
            if self._files is not None:
                self._files.delete(id_)

    def sweep(self) -> None:
        """Delete the episodes that nobody used for too long."""
        before = self._clock() - self._settings.episode_idle_s
        with self._lock:
            for id_, episode in list(self._episodes.items()):
                if episode.used < before:
                    self._forget(id_)
            if self._files is not None:
                for id_ in self._files.ids():
                    if id_ not in self._episodes and self._files.used(id_) < before:
                        self._files.delete(id_)

    def _ids(self, owner: str | None) -> list[str]:
        if self._files is None:
            return sorted(id_ for id_, one in self._episodes.items() if one.owner == owner)
        abouts = {id_: self._files.about(id_) for id_ in self._files.ids()}
        return [id_ for id_, about in abouts.items() if about is not None and about["owner"] == owner]

    def _empty(self, vlm: Vlm, owner: str | None, fields: EpisodeFields, id_: str, created: float) -> Episode:
        rule = fields.frame_rule(vlm.family.separator_rows > 0)
        capacity = self._settings.episode_tokens
        return Episode(rule, capacity, fields, id_, owner, created, self._clock())

    def _held(self, owner: str | None, id_: str) -> Episode:
        """Return an episode in memory, as used now."""
        with self._lock:
            episode = self._episodes.get(id_)
            if episode is None or episode.owner != owner:
                raise ServiceError("episode_not_found")
            episode.used = self._clock()
        if self._files is not None:
            self._files.touch(id_)
        return episode

    def _is_behind(self, id_: str) -> bool:
        """Return whether the directory knows more, or less, than memory."""
        assert self._files is not None
        if self._files.about(id_) is None:
            self._forget(id_)
            return False
        with self._lock:
            return id_ not in self._episodes or self._versions.get(id_) != self._files.version(id_)

    def _read(self, vlm: Vlm, id_: str) -> None:
        """Bring memory to what is on disk. The caller keeps other writers out."""
        assert self._files is not None
        if not self._is_behind(id_):
            return
        about, version = self._files.about(id_), self._files.version(id_)
        if about is None:
            raise ServiceError("episode_not_found")
        if about["model"] != _model_of(vlm):
            raise ServiceError("episode_other_model")
        fields = EpisodeFields.model_validate(about["fields"])
        episode = self._empty(vlm, about["owner"], fields, id_, about["created"])
        self._files.read(id_, episode)
        with self._lock:
            self._episodes[id_], self._versions[id_] = episode, version

    def _require_room(self, episode: Episode, frame: StoredFrame) -> None:
        """Let go of what is on disk anyway, least recently used first; else refuse."""
        most = self._settings.key_episodes_bytes
        with self._lock:
            own = [one for one in self._episodes.values() if one.owner == episode.owner]
            total = sum(one.nbytes for one in own) + frame.nbytes
            others = sorted((one for one in own if one is not episode), key=lambda one: one.used)
            for other in others if self._files is not None else ():
                if total <= most:
                    return
                assert other.id is not None
                total -= other.nbytes
                self._forget(other.id)
            if total > most:
                raise ServiceError("episode_memory", limit=most)

    def _forget(self, id_: str) -> None:
        with self._lock:
            self._episodes.pop(id_, None)
            self._versions.pop(id_, None)


@contextmanager
def _found() -> Iterator[None]:
    """Take what was deleted while it was looked at for not there."""
    try:
        yield
    except FileNotFoundError:
        raise ServiceError("episode_not_found") from None


@contextmanager
def _stored(id_: str) -> Iterator[None]:
    """Turn what the directory refuses into a refusal of ours."""
    try:
        yield
    except OSError as error:
        log.error("episode %s could not be written: %s", id_, error)
        raise ServiceError("episode_storage", retry_after_s=1) from None


def _model_of(vlm: Vlm) -> list[str]:
    return [vlm.id, vlm.revision, short(vlm.dtype)]
