"""From the tokens that an episode keeps to a question that is ready for the model: no frame is encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from service.episodes.episode import Episode
from service.pipeline.frame_cache import EncodedFrame
from service.pipeline.frames import Frame
from service.pipeline.planning import Planned, plan_request
from service.pipeline.prepare import Prepared, params_of, salt_of
from service.pipeline.remembered import Remembered
from service.pipeline.response_models import DepthUsed
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from tosa.frames import Kept
from vlm import Spelled, Turn, Visual, Vlm, chat_ids, prompt_ids, require_room


def prepare_answer(
    vlm: Vlm,
    request: VqaRequest,
    episode: Episode,
    settings: Settings,
    tenant: str | None,
    depth: DepthUsed | None = None,
    places: bool = False,
) -> Prepared:
    """Prepare a question about an episode. Raises ServiceError, VlmError.

    The tokens of frames come first in the prompt, so that questions about the same frames begin alike. depth:
    what guided the merging inside frames, if it is known. places: the answer also shows the walk.
    """
    with episode.lock:
        kept = episode.kept()
        planned = _planned(vlm, episode, request.fields)
        used = episode.described(kept)
        separator = episode.separator
        walk = episode.walk(kept) if places else None
    name = _name_of(episode, kept)
    first = planned[0]
    frames, spelled = [], []
    for at, rows in enumerate(torch.split(kept.features, list(kept.runs))):
        features = rows if separator is None or not kept.separates else torch.cat([rows, separator])
        written = vlm.family.spell(first.layout, (len(features),))
        own = replace(first, spelled=written)
        visual = Visual(features.to(vlm.device))
        frames.append(Frame(_key(name, at), own, EncodedFrame(visual)))
        spelled.append(written)
    return Prepared(
        prompt=_prompt(vlm, request, spelled),
        params=params_of(vlm, request, settings),
        frames=tuple(frames),
        source=None,
        depth=depth,
        remember=True,
        schema_field=request.output.schema_field,
        salt=salt_of(tenant, request.fields.cache),
        episode=Remembered(planned, used, kept.runs, separator is not None and kept.separates, walk),
    )


def _planned(vlm: Vlm, episode: Episode, fields: VqaFields) -> tuple[Planned, ...]:
    """Return how each frame that still has tokens was seen and merged inside."""
    numbers = [number for number, _, _ in episode.memory.held_by_frame()]
    by_view = {
        view: plan_request(vlm, fields, view[2], [view[:2]])[0]
        for view in {episode.views[number] for number in numbers}
    }
    return tuple(by_view[episode.views[number]] for number in numbers)


def _prompt(vlm: Vlm, request: VqaRequest, spelled: Sequence[Spelled]) -> Tensor:
    if request.turns is None:
        ids = prompt_ids(vlm, request.fields.question, spelled)
    else:
        ids = chat_ids(vlm, with_frames(request.turns, len(spelled)), spelled)
    require_room(vlm, [ids])
    return ids.cpu()


def with_frames(turns: Sequence[Turn], number: int) -> tuple[Turn, ...]:
    """Put so many images in front of the first message of the user."""
    first = next(at for at, turn in enumerate(turns) if turn.role == "user")
    return tuple(
        Turn(turn.role, (*[None] * number, *turn.content)) if at == first else turn
        for at, turn in enumerate(turns)
    )


def _name_of(episode: Episode, kept: Kept) -> bytes:
    if episode.id is not None:
        return episode.id.encode()
    return hashlib.sha256(kept.features.float().numpy().tobytes()).digest()


def _key(name: bytes, at: int) -> bytes:
    return hashlib.sha256(b"episode " + name + at.to_bytes(4, "big")).digest()
