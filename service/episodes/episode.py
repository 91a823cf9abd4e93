"""One episode: its memory of tokens, what is said about its frames, and one writer at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from torch import Tensor

from depth import Note
from depth.geometry import Agreement, SampledFrame
from service.errors import ServiceError
from service.pipeline.geometry import FrameGeometry
from service.pipeline.response_models import (
    DepthNote,
    EpisodeUsed,
    EpisodeWalk,
    FrameKept,
    WalkCamera,
    WalkToken,
)
from service.request.schemas import EpisodeFields, VqaFields
from tosa.frames import Admitted, BudgetTooSmall, EpisodeMemory, FrameRule, FrameTokens, Kept
from vlm import Visual

MOST_NOTES = 16


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """Hold all of one encoded frame that an episode takes in: what is written to disk, and read again.

    separator: [n, D], features behind the tokens of a frame. size: (height, width) of the image in px.
    has_depth: depth came with it or was asked for, which decides the usual method.
    """

    tokens: FrameTokens
    separator: Tensor
    size: tuple[int, int]
    has_depth: bool
    notes: tuple[Note, ...] = ()

    @property
    def nbytes(self) -> int:
        """Return the most memory that an episode takes for it: tokens, their places, and seen cells."""
        return self.tokens.features.nbytes + 64 * len(self.tokens.features) + 300 * len(self.tokens.source)


@dataclass(eq=False)
class Episode:
    """Hold an episode. id: None for frames that came with their question. owner: the name of its key.

    fields: as it was begun with. created, used: seconds since 1970. Threads take `lock`.
    """

    rule: FrameRule
    capacity: int
    fields: EpisodeFields | VqaFields
    id: str | None = None
    owner: str | None = None
    created: float = 0.0
    used: float = 0.0
    memory: EpisodeMemory = field(init=False)
    separator: Tensor | None = None
    views: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    notes: dict[Note, None] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self.memory = EpisodeMemory(self.rule, self.capacity)
        self._agreement = Agreement(self.fields.convention or "opencv")
        self._sample: SampledFrame | None = None

    @property
    def frames(self) -> int:
        """Return how many frames came."""
        return self.memory.frames

    @property
    def nbytes(self) -> int:
        """Return the memory that is used."""
        return self.memory.nbytes + 200 * len(self.views)

    @property
    def last_time(self) -> float | None:
        """Return the latest timestamp, None if no frame had one."""
        latest = self.memory.latest
        return None if math.isnan(latest) else latest

    @property
    def agreement(self) -> float | None:
        """Return the share of what overlapping frames both see that lies at the same place."""
        mean = self._agreement.mean
        return None if mean is None else round(mean, 4)

    def doubts(self) -> list[DepthNote]:
        """Return what is to be said about poses, intrinsics and units."""
        with self.lock:
            notes = (*self.notes, *self._agreement.doubts())
            return [DepthNote(code=one.code, sentence=one.sentence) for one in notes]

    def push(self, frame: StoredFrame, sample: SampledFrame | None = None) -> Admitted:
        """Take in a frame. Raises ServiceError (episode_full), and has changed nothing then."""
        with self.lock:
            try:
                admitted = self.memory.push(frame.tokens)
            except BudgetTooSmall as error:
                raise ServiceError("episode_full", field="max_visual_tokens", limit=error.budget) from None
            self.separator = frame.separator
            self.views[admitted.frame] = (*frame.size, frame.has_depth)
            if len(self.views) > self.memory.remembered:
                self._forget_views()
            for note in frame.notes[: max(0, MOST_NOTES - len(self.notes))]:
                self.notes[note] = None
            if sample is not None:
                if self._sample is not None:
                    self._agreement.add(sample, self._sample)
                self._sample = sample
            return admitted

    def move(self, poses: Mapping[int, Tensor]) -> None:
        """Give frames new poses, camera to world [4, 4]."""
        with self.lock:
            self.memory.move(poses.items())

    def kept(self) -> Kept:
        """Return the tokens that a question reads. Raises ServiceError (episode_empty, bad_merge_frames)."""
        with self.lock:
            try:
                kept = self.memory.select()
            except BudgetTooSmall as error:
                raise ServiceError(
                    "bad_merge_frames", reason="budget", field="max_visual_tokens", limit=error.budget
                ) from None
        if kept is None:
            raise ServiceError("episode_empty")
        return kept

    def described(self, kept: Kept | None) -> EpisodeUsed:
        """Describe the episode, and what `kept` has of each frame."""
        with self.lock:
            held = self.memory.held_by_frame()
            times = self.memory.times([number for number, _, _ in held])
            read = Counter[int]() if kept is None else Counter(kept.frame.tolist())
            return EpisodeUsed(
                id=self.id,
                merge_frames=self.rule.method,
                max_visual_tokens=self.rule.budget,
                visual_tokens=0 if kept is None else kept.visual_tokens,
                frames=self.frames,
                tokens=self.memory.tokens,
                cell_m=self.memory.cell_m,
                agreement=self.agreement,
                kept=[
                    FrameKept(
                        frame=number,
                        timestamp=None if math.isnan(time) else time,
                        held=tokens,
                        placed=placed,
                        kept=read[number],
                    )
                    for (number, tokens, placed), time in zip(held, times, strict=True)
                ],
                notes=self.doubts(),
            )

    def walk(self, kept: Kept | None) -> EpisodeWalk:
        """Return where cameras were and where `kept` is, in the world of the poses that came."""
        with self.lock:
            seen = self.memory.cameras
            tokens = list[WalkToken]()
            if kept is not None:
                places, of = self.memory.points(kept), self.memory.frames_of(kept)
                tokens = [
                    WalkToken(
                        place=_metres(place) if place[2].isfinite() else None, frames=own, attention=None
                    )
                    for place, own in zip(places, of, strict=True)
                ]
        cameras = [
            WalkCamera(
                frame=frame,
                position=_metres(pose[:3, 3]),
                forward=_metres(pose[:3, 2]),
                up=_metres(-pose[:3, 1]),
            )
            for frame, pose in seen
        ]
        return EpisodeWalk(cameras=cameras, tokens=tokens)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything but the fields, as tensors and as what JSON holds."""
        with self.lock:
            self._forget_views()
            tensors = self.memory.state()
            if self.separator is not None:
                tensors["separator"] = self.separator.clone()
            notes = [(one.code, one.sentence) for one in self.notes]
            return tensors, {"frames": self.frames, "views": list(self.views.items()), "notes": notes}

    def restore(self, tensors: dict[str, Tensor], said: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        with self.lock:
            self.separator = tensors.pop("separator", None)
            self.memory = EpisodeMemory.of_state(self.rule, tensors, self.capacity)
            self.views = {number: (height, width, has) for number, (height, width, has) in said["views"]}
            self.notes = {Note(code, sentence): None for code, sentence in said["notes"]}

    def _forget_views(self) -> None:
        held = {number for number, _, _ in self.memory.held_by_frame()}
        self.views = {number: view for number, view in self.views.items() if number in held}


def _metres(vector: Tensor) -> tuple[float, float, float]:
    x, y, z = (round(value, 4) + 0.0 for value in vector.tolist())  # and no -0.0
    return x, y, z


def stored_frame(geometry: FrameGeometry, visual: Visual, separators: int, has_depth: bool) -> StoredFrame:
    """Make what an episode takes in of an encoded frame. separators: rows of features behind its tokens."""
    rest = visual.features[len(visual.features) - separators :].detach().cpu().contiguous()
    return StoredFrame(geometry.tokens(visual, separators), rest, geometry.size, has_depth, geometry.notes)


def episode_of(
    fields: VqaFields,
    geometry: Sequence[FrameGeometry],
    visuals: Sequence[Visual],
    separators: int,
    has_depth: bool,
    capacity: int,
) -> Episode:
    """Merge the encoded frames of one request as if they were pushed. Raises ServiceError (episode_full).

    separators: rows of features behind the tokens of each frame. capacity: most tokens that are held.
    """
    episode = Episode(fields.frame_rule(separators > 0), capacity, fields)
    for own, visual in zip(geometry, visuals, strict=True):
        episode.push(stored_frame(own, visual, separators, has_depth), own.sample)
    return episode
