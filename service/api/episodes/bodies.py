"""From HTTP bodies to episodes, their frames, new poses, and questions about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from depth import DepthError
from depth.geometry import read_pose
from service.api.body import Form, read_form
from service.episodes.episode import Episode
from service.errors import ServiceError
from service.request.schemas import (
    EpisodeFields,
    FrameFields,
    MoveFields,
    Output,
    QuestionFields,
    VqaFields,
    VqaRequest,
)
from service.request.validation import check_counts, check_fields, check_frames, validated
from service.settings import Settings


def parse_episode(kind: bytes, boundary: bytes, body: bytes, settings: Settings) -> EpisodeFields:
    """Parse what an episode is begun with. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, EpisodeFields)
    _refuse_files(form)
    fields = validated(EpisodeFields, form.fields, strict=form.is_typed)
    if fields.merge_frames is None:
        fields = fields.model_copy(update={"merge_frames": "none"})
    checked = _as_question({**fields.model_dump(exclude_unset=True), "question": "?"}, settings)
    check_frames(VqaRequest(checked, (b"",), ()))
    if checked.depth == "estimate" and not settings.estimates_depth:
        raise ServiceError("estimate_off", field="depth", choices=("client", "none"))
    return EpisodeFields.model_validate(
        {**fields.model_dump(exclude_unset=True), "merge_frames": fields.merge_frames}
    )


def parse_frame(
    kind: bytes, boundary: bytes, body: bytes, episode: Episode, settings: Settings
) -> tuple[FrameFields, VqaRequest]:
    """Parse one frame of an episode. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, FrameFields)
    fields = validated(FrameFields, form.fields, strict=form.is_typed)
    if len(form.images) != 1:
        raise ServiceError("image_count", reason="one_frame", field="image", limit=1)
    if len(form.depths) > 1:
        raise ServiceError("depth_count", reason="inspect_one", field="depth")
    raw = {
        **episode.fields.model_dump(exclude_unset=True),
        "question": "?",
        "cache": fields.cache,
        "poses": None if fields.pose is None else [fields.pose],
        "timestamps": None if fields.timestamp is None else [fields.timestamp],
    }
    for name in ("intrinsics", "depth_intrinsics"):
        own = getattr(fields, name)
        raw |= {} if own is None else {name: own}
    request = form.request(_as_question(raw, settings))
    check_counts(request, settings)
    return fields, request


@contextmanager
def one_frame() -> Iterator[None]:
    """Let errors call the fields of a frame as they were sent: pose, and not poses."""
    try:
        yield
    except DepthError as error:
        plural = error.field.partition("[")[0]
        error.field = {"poses": "pose", "timestamps": "timestamp"}.get(plural, error.field)
        raise


def parse_moves(kind: bytes, boundary: bytes, body: bytes, episode: Episode) -> dict[int, Tensor]:
    """Parse new poses of frames. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, MoveFields)
    _refuse_files(form)
    fields = validated(MoveFields, form.fields, strict=form.is_typed)
    moves = {}
    for name, raw in fields.poses.items():
        if not name.isdecimal() or int(name) >= episode.frames:
            raise ServiceError("bad_pose", reason="frame", field="poses", limit=episode.frames - 1)
        try:
            pose = read_pose(raw, fields.convention or episode.fields.convention)
        except DepthError as error:
            error.field = error.field if error.field == "convention" else "poses"
            raise
        moves[int(name)] = torch.from_numpy(pose)
    return moves


def parse_asked(
    kind: bytes, boundary: bytes, body: bytes, episode: Episode, settings: Settings
) -> tuple[VqaRequest, bool]:
    """Parse a question about an episode, and whether it wants places. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, QuestionFields)
    _refuse_files(form)
    asked = validated(QuestionFields, form.fields, strict=form.is_typed).model_dump(exclude_unset=True)
    places = asked.pop("places", False)
    fields = question_of(episode, asked, settings)
    output = Output(top_logprobs=0 if fields.confidence else None)
    return VqaRequest(fields, (), (), output=output), places


def question_of(episode: Episode, asked: Mapping[str, Any], settings: Settings) -> VqaFields:
    """Return the fields of a question about an episode, with what it was begun with."""
    return _as_question({**episode.fields.model_dump(exclude_unset=True), **asked}, settings)


def _as_question(raw: Mapping[str, Any], settings: Settings) -> VqaFields:
    return check_fields(
        {name: value for name, value in raw.items() if value is not None}, settings, strict=True
    )


def _refuse_files(form: Form) -> None:
    for files, name in ((form.images, "image"), (form.depths, "depth")):
        if files:
            raise ServiceError("bad_merge_frames", reason="no_file", field=name)
