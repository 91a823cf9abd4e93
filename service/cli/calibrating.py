"""Measure what method=auto chooses by: the time of an answer, and how many are right, for some settings.

Both through the whole pipeline of this process, on rooms of RoomQA that no split holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from service.engine.batch_runner import answer_here
from service.pipeline.calibration import Calibration, Kind, Measured
from service.pipeline.models import Models
from service.pipeline.picture_noise import noise_of
from service.pipeline.prepare import prepare
from service.request.schemas import VqaFields, VqaRequest
from service.roomqa.arrange import make_scene
from service.roomqa.condition import parse_condition
from service.roomqa.export import millimetres
from service.roomqa.questions import Question, questions
from service.roomqa.render import render
from service.roomqa.spoil import spoil
from service.settings import Settings
from service.timing import StageTimer
from tosa import METHODS, PlanError
from vlm.dtypes import short

Merge = Mapping[str, Any]

NONE: Merge = {"method": "none"}
MERGES: tuple[Merge, ...] = (
    *({"method": "tome", "keep_ratio": keep} for keep in (0.5, 0.25, 0.1)),
    *({"method": "tosa", "alpha": "auto", "keep_ratio": keep} for keep in (0.5, 0.25, 0.1)),
)
KINDS = ("clean", "noise:1", "noise:2", "noise:3")
FIRST_SEED = 40_000_000
PER_FRAME = 4


@dataclass(frozen=True)
class Shown:
    """One frame of one kind: picture and depth as files, and what is asked about it."""

    picture: bytes
    depth: bytes
    noise: float
    asked: tuple[Question, ...]


def calibrate(
    models: Models,
    settings: Settings,
    n_questions: int,
    rounds: int,
    kinds: Sequence[str] = KINDS,
    merges: Sequence[Merge] = MERGES,
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Measure no merging and `merges`, those that this model can do, on n_questions of every kind.

    say: is told each result. Times are medians over `rounds`, in which all settings take turns.
    """
    frames = math.ceil(n_questions / PER_FRAME)
    shown = {kind: list(_shown(kind, frames)) for kind in kinds}
    able = [NONE, *(merge for merge in merges if _can(models, settings, merge, shown[kinds[0]][0]))]
    times = _times(models, settings, able, shown[kinds[0]], rounds)
    measured = []
    for merge, total_ms in zip(able, times, strict=True):
        accuracy = {kind: _accuracy(models, settings, merge, each) for kind, each in shown.items()}
        needs_depth = METHODS[merge["method"]].needs_spatial
        one = Measured(merge=dict(merge), needs_depth=needs_depth, total_ms=total_ms, accuracy=accuracy)
        measured.append(one)
        shares = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in accuracy.items())
        say(f"{one.name}: {total_ms:.0f} ms, {shares}")
    vlm = models.vlm
    return Calibration(
        model=vlm.id,
        revision=vlm.revision,
        device=vlm.device.type,
        dtype=short(vlm.dtype),
        threads=torch.get_num_threads(),
        date=datetime.now(UTC).date().isoformat(),
        questions=sum(len(each.asked) for each in shown[kinds[0]]),
        kinds=tuple(Kind(name=kind, noise=median(one.noise for one in each)) for kind, each in shown.items()),
        settings=tuple(measured),
    )


def _shown(kind: str, frames: int) -> Iterator[Shown]:
    for seed in range(FIRST_SEED, FIRST_SEED + frames):
        scene = make_scene(seed)
        frame = render(scene)
        rgb = frame.rgb if kind == "clean" else spoil(frame.rgb, parse_condition(kind), seed, frame.depth)
        depth = millimetres(frame.depth)
        asked = questions(scene, frame, seed, PER_FRAME)
        yield Shown(_png(rgb), _png(depth), noise_of(Image.fromarray(rgb)), tuple(asked))


def _can(models: Models, settings: Settings, merge: Merge, shown: Shown) -> bool:
    try:
        prepare(models, _request(merge, shown, shown.asked[0], False), settings, StageTimer())
    except PlanError:
        return False
    return True


def _times(
    models: Models, settings: Settings, merges: Sequence[Merge], shown: Sequence[Shown], rounds: int
) -> list[float]:
    """Time a whole answer with each setting, in turns whose order changes; milliseconds."""
    spent: list[list[float]] = [[] for _ in merges]
    for turn in range(-1, rounds):  # the first does not count
        one = shown[turn % len(shown)]
        for index in random.Random(turn).sample(range(len(merges)), len(merges)):
            timer = StageTimer()
            prepared = prepare(models, _request(merges[index], one, one.asked[0], False), settings, timer)
            answer_here(models, prepared, timer)
            if turn >= 0:
                spent[index].append(timer.timings_ms().total)
    return [round(median(each), 2) for each in spent]


def _accuracy(models: Models, settings: Settings, merge: Merge, shown: Sequence[Shown]) -> float:
    """Return the share of right answers; the questions about a frame share its encoding in the cache."""
    right = []
    for one in shown:
        for question in one.asked:
            prepared = prepare(models, _request(merge, one, question, True), settings, StageTimer())
            said = answer_here(models, prepared).text
            right.append(_plain(said) == _plain(question.answer))
    return round(sum(right) / len(right), 4)


def _request(merge: Merge, shown: Shown, question: Question, cache: bool) -> VqaRequest:
    fields = VqaFields(question=question.question, max_new_tokens=8, cache=cache, **merge)
    depths = (shown.depth,) if METHODS[merge["method"]].needs_spatial else ()
    return VqaRequest(fields, (shown.picture,), depths)


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _png(pixels: np.ndarray) -> bytes:
    written = BytesIO()
    Image.fromarray(pixels).save(written, "PNG", compress_level=1)
    return written.getvalue()
