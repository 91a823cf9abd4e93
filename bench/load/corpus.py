"""The requests of the load tests: questions about rendered rooms, as JPEG and 16-bit PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from bench.load.requests import Request, form
from evals.rooms import TEST, make_scene
from service.roomqa.questions import TYPES, questions
from service.roomqa.render import render

JPEG_QUALITY = 90
MM_PER_M = 1000
MODES: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "tome 0.25": {"method": "tome", "keep_ratio": 0.25},
    "tosa 0.25": {"method": "tosa", "keep_ratio": 0.25},
    "tosa 0.5": {"method": "tosa", "keep_ratio": 0.5},
    "cubist 0.25": {"method": "cubist", "keep_ratio": 0.25},
}
"""The fields of a request that choose merging, by mode."""


@dataclass(frozen=True)
class View:
    """One frame, encoded, with questions about it and their answers."""

    image: bytes
    depth: bytes
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@lru_cache(maxsize=1024)
def view(index: int) -> View:
    """Render frame `index` of the test split."""
    scene = make_scene(TEST[index])
    frame = render(scene)
    drawn = questions(scene, frame, scene.seed, len(TYPES))
    depth = np.round(frame.depth * MM_PER_M).astype(np.uint16)
    return View(
        _file(frame.rgb, format="JPEG", quality=JPEG_QUALITY),
        _file(depth, format="PNG"),
        tuple(one.question for one in drawn),
        tuple(one.answer for one in drawn),
    )


def body_of(index: int, mode: str, question: int = 0, more: Mapping[str, object] | None = None) -> bytes:
    """Encode one question about one frame as a form, with depth if the mode uses it."""
    return question_form(index, {**MODES[mode], **(more or {})}, question)


def question_form(index: int, fields: Mapping[str, Any], question: int = 0) -> bytes:
    """Encode one question about one frame with these fields as a form, with depth if the method uses it."""
    frame = view(index)
    files = {"image": frame.image, **({"depth": frame.depth} if fields["method"] == "tosa" else {})}
    text = frame.questions[question % len(frame.questions)]
    return form({"question": text, **fields}, files)


def ask(
    index: int,
    mode: str,
    more: Mapping[str, object] | None = None,
    question: int = 0,
    label: str | None = None,
    path: str = "/vqa",
) -> Request:
    """Return the request of one question about one frame."""
    return Request(path, body_of(index, mode, question, more), label or mode)


def distinct(
    modes: Sequence[str],
    number: int,
    more: Mapping[str, object] | None = None,
    start: int = 0,
    path: str = "/vqa",
) -> list[Request]:
    """Return one question about each of `number` different frames, the modes alternating."""
    return [ask(start + index, modes[index % len(modes)], more, path=path) for index in range(number)]


def _file(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()
