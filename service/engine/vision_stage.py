"""Encode the frames of one batch, each once. Cached frames are reused; the others are estimated and encoded.

Runs in the model thread. Raises what the models raise; a frame with non-finite features is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from service.engine.jobs import Job
from service.pipeline.depth_summary import Understood, of_estimate
from service.pipeline.frame_cache import EncodedFrame
from service.pipeline.frames import Frame, attach_spatial, estimate_depth, frame_visuals
from service.pipeline.models import Models
from tosa import MergePlan
from vlm import Visual, synchronize

Tag = tuple[bytes, int]  # a frame's key, and the number of its job where it must not be shared
Estimated = tuple[tuple[Understood, ...], bool]  # of each picture of a frame; whether all were remembered
SHARED = -1


class BatchObserver(Protocol):
    """Receive the cache hits and the outcome of every batch; service.telemetry.Telemetry."""

    def frames_looked_up(self, hits: int, misses: int) -> None: ...
    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None: ...


@dataclass(frozen=True, eq=False)
class EncodedJob:
    """Hold the encoded frames of one job.

    visuals: one for each frame. understood: depth of each picture that was estimated, now or earlier. cached:
    no encoder ran for this job. is_remembered: no estimator ran for it.
    """

    visuals: tuple[Visual, ...]
    understood: tuple[Understood, ...]
    cached: bool
    is_remembered: bool


def encode_frames(
    models: Models, jobs: Sequence[Job], limit: int, observer: BatchObserver, between: Callable[[], None]
) -> dict[Job, EncodedJob]:
    """Return the encoded frames of every job of a group; jobs with non-finite features are left out.

    At most `limit` frames are encoded at once. `between` is called before every layer and may raise to stop.
    """
    tags = {job: _tags(job, number) for number, job in enumerate(jobs)}
    known, todo, leaders = _look_up(models, tags)
    _count(observer, tags, leaders)
    todo, estimated = _estimated(models, jobs, todo, leaders)
    if todo:
        known |= _encoded(models, todo, estimated, limit, between)
        _mark(jobs, leaders, "vision")
    for job in leaders:
        job.ran_encoder = True
    fresh = {tag for tag, (_, are_known) in estimated.items() if not are_known}
    return {
        job: EncodedJob(
            tuple(known[tag].visual for tag in own),
            tuple(part for tag in own for part in known[tag].understood),
            cached=not job.ran_encoder,
            is_remembered=fresh.isdisjoint(leaders.get(job, ())),
        )
        for job, own in tags.items()
        if all(tag in known for tag in own)
    }


def _count(observer: BatchObserver, tags: dict[Job, list[Tag]], leaders: dict[Job, set[Tag]]) -> None:
    """Count the frames of each job once, also if its batch has to run again."""
    new = [job for job in tags if not job.was_looked_up]
    misses = sum(len(leaders.get(job, ())) for job in new)
    observer.frames_looked_up(sum(len(tags[job]) for job in new) - misses, misses)
    for job in new:
        job.was_looked_up = True


def _tags(job: Job, number: int) -> list[Tag]:
    """Return a tag per frame of a job; frames that must not be cached get tags of their own."""
    return [(frame.key, SHARED if job.prepared.remember else number) for frame in job.prepared.frames]


def _look_up(
    models: Models, tags: dict[Job, list[Tag]]
) -> tuple[dict[Tag, EncodedFrame], dict[Tag, Frame], dict[Job, set[Tag]]]:
    """Return the cached frames, the frames to encode, and the job that brought each of these first."""
    known: dict[Tag, EncodedFrame] = {}
    todo: dict[Tag, Frame] = {}
    leaders: dict[Job, set[Tag]] = {}
    for job, own in tags.items():
        for tag, frame in zip(own, job.prepared.frames, strict=True):
            remembered = frame.encoded
            if remembered is None and job.prepared.remember:
                remembered = models.frames.get(frame.key)
            if remembered is not None:
                known[tag] = remembered
            elif tag not in todo:
                todo[tag] = frame
                leaders.setdefault(job, set()).add(tag)
    return known, todo, leaders


def _estimated(
    models: Models, jobs: Sequence[Job], todo: dict[Tag, Frame], leaders: dict[Job, set[Tag]]
) -> tuple[dict[Tag, Frame], dict[Tag, Estimated]]:
    """Estimate missing depth; return frames with spatial tokens, and estimates with their cache hits."""
    waiting = {tag: frame for tag, frame in todo.items() if frame.to_estimate}
    if not waiting:
        return todo, {}
    assert models.estimation is not None, "frames wait only for an estimator that is there"
    depths, known = estimate_depth(list(waiting.values()), models.estimation)
    _mark(jobs, leaders, "estimate")
    ready = attach_spatial(list(waiting.values()), depths)
    described = [(tuple(map(of_estimate, own)), all(hits)) for own, hits in zip(depths, known, strict=True)]
    _mark(jobs, leaders, "depth")
    return todo | dict(zip(waiting, ready, strict=True)), dict(zip(waiting, described, strict=True))


def _encoded(
    models: Models,
    todo: dict[Tag, Frame],
    estimated: dict[Tag, Estimated],
    limit: int,
    between: Callable[[], None],
) -> dict[Tag, EncodedFrame]:
    """Encode frames and cache those with finite features."""
    encoded: dict[Tag, EncodedFrame] = {}
    for part in _parts(todo, limit):
        visuals = frame_visuals(models.vlm, [todo[tag] for tag in part], between)
        finite = torch.stack([_are_finite(visual) for visual in visuals]).tolist()
        for tag, own, is_finite in zip(part, visuals, finite, strict=True):
            if is_finite:
                encoded[tag] = EncodedFrame(own, estimated[tag][0] if tag in estimated else ())
    synchronize(models.vlm.device)
    for (key, number), frame in encoded.items():
        if number == SHARED:
            models.frames.put(key, frame)
    return encoded


def _parts(todo: dict[Tag, Frame], limit: int) -> Iterator[list[Tag]]:
    """Split frames into those that run together: they share a plan, and have `limit` views at most.

    A frame that has more views alone runs alone.
    """
    by_plan: dict[MergePlan, list[Tag]] = {}
    for tag, frame in todo.items():
        by_plan.setdefault(frame.planned.plan, []).append(tag)
    for tags in by_plan.values():
        part, views = list[Tag](), 0
        for tag in tags:
            more = len(todo[tag].planned.layout.views)
            if part and views + more > limit:
                yield part
                part, views = [], 0
            part.append(tag)
            views += more
        yield part


def _are_finite(visual: Visual) -> Tensor:
    """Return whether all that the language model would read is finite, on its device."""
    parts = [torch.isfinite(part).all() for part in (visual.features, *visual.deepstack)]
    return torch.stack(parts).all()


def _mark(jobs: Sequence[Job], leaders: dict[Job, set[Tag]], stage: str) -> None:
    """Add the elapsed time to `stage` for the jobs that needed it, and to `queue` for the others."""
    for job in jobs:
        job.timer.mark(stage if job in leaders else "queue")
