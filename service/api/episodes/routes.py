"""The endpoints below /episodes. Each handler calls the steps of lifecycle.py in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from service.api.episodes.bodies import one_frame, parse_asked, parse_episode, parse_frame, parse_moves
from service.api.episodes.responses import EpisodeDeleted, EpisodeList, EpisodeState, FrameTaken
from service.api.lifecycle import (
    answer,
    episode_job,
    make_job,
    service_state,
    stream_answer,
    timed,
)
from service.api.openapi import EPISODE_BODY, FRAME_BODY, MOVE_BODY, QUESTION_BODY, VQA_STREAM
from service.api.receiving import Received, receive
from service.api.routes import ERROR_RESPONSES, error_event, vqa_events
from service.api.serialise import json_response
from service.api.sse import stream
from service.api.state import ServiceState
from service.engine.jobs import Job
from service.episodes.episode import Episode, stored_frame
from service.episodes.store import ID
from service.errors import ServiceError
from service.pipeline.geometry import check_times, require_frames
from service.pipeline.response_models import VqaResponse
from service.request.schemas import EpisodeFields, FrameFields, MoveFields, QuestionFields, ShowFields
from service.request.validation import validated
from service.timing import server_timing

router = APIRouter()
EpisodeId = Annotated[str, Path(description="Id of the episode.", examples=["0" * 32])]
Places = Annotated[
    str,
    Query(
        description="Also show the walk: cameras, and the tokens in their places.",
        examples=["true"],
        json_schema_extra={"enum": ["true", "false"]},
    ),
]
ID_HEADER = "x-episode-id"
CREATED: dict[int | str, dict[str, Any]] = {201: {"model": EpisodeState}, **ERROR_RESPONSES}
T = TypeVar("T")


@router.post(
    "/episodes", status_code=201, response_model=EpisodeState, responses=CREATED, openapi_extra=EPISODE_BODY
)
async def begin(request: Request) -> Response:
    """Begin an episode, whose frames come one by one. X-Episode-ID names it, where a proxy routes by ids."""
    async with receive(request, "/episodes", EpisodeFields) as received:
        context, state = received.context, received.state
        vlm = state.models().vlm

        def work() -> EpisodeState:
            fields = parse_episode(*received.kind, received.body, state.settings)
            require_frames(vlm)
            wanted = request.headers.get(ID_HEADER)
            id_ = wanted if wanted is not None and ID.fullmatch(wanted) else None
            return _state_of(state, state.episodes.begin(vlm, context.key, fields, id_), context.request_id)

        return json_response(await received.in_thread(work), status=201)


@router.post(
    "/episodes/{id}/frames", response_model=FrameTaken, responses=ERROR_RESPONSES, openapi_extra=FRAME_BODY
)
async def push(request: Request, id: EpisodeId) -> Response:
    """Encode a frame and take its tokens in. With a directory set, it is on disk when the answer comes."""
    async with receive(request, "/episodes/{id}/frames", FrameFields) as received:
        context, state = received.context, received.state
        vlm = state.models().vlm
        await _take_turn(received, state.episodes.writer(id))

        def prepare_frame() -> tuple[Job, bool]:
            context.timer.mark("queue")
            episode = state.episodes.get(vlm, context.key, id)
            fields, parsed = parse_frame(*received.kind, received.body, episode, state.settings)
            context.tighten_deadline(fields.timeout_s)
            with one_frame():
                job = make_job(context, state, parsed, context.timer)
                check_times(job.prepared.geometry, episode.last_time)
            return job, parsed.wants_depth

        job, has_depth = await received.in_thread(prepare_frame)
        context.where = "queue"
        encoded = await context.wait(state.engine.answer(job))
        context.where = "decode"

        def take() -> FrameTaken:
            context.timer.mark("queue")
            (geometry,), (visual,) = job.prepared.geometry, encoded.visuals
            frame = stored_frame(geometry, visual, vlm.family.separator_rows, has_depth)
            episode, admitted = state.episodes.push(vlm, context.key, id, frame, geometry.sample)
            context.timer.mark("generate")
            return FrameTaken(
                request_id=context.request_id,
                episode=id,
                frame=admitted.frame,
                frames=episode.frames,
                tokens=admitted.tokens,
                admitted=admitted.admitted,
                placed=admitted.placed,
                held=episode.memory.tokens,
                agreement=episode.agreement,
                notes=episode.doubts(),
                cached=encoded.cached,
                timings_ms=context.timer.timings_ms(),
            )

        taken = await received.in_thread(take)
        return json_response(taken, {"Server-Timing": server_timing(taken.timings_ms)})


@router.post(
    "/episodes/{id}/vqa",
    response_model=VqaResponse,
    responses={**ERROR_RESPONSES, **VQA_STREAM},
    openapi_extra=QUESTION_BODY,
)
async def ask(request: Request, id: EpisodeId) -> Response:
    """Answer a question about an episode, from the tokens it holds: nothing is encoded."""
    async with receive(request, "/episodes/{id}/vqa", QuestionFields) as received:
        context, state = received.context, received.state
        vlm = state.models().vlm

        def prepare_question() -> tuple[bool, Job]:
            context.timer.mark("queue")
            episode = state.episodes.get(vlm, context.key, id)
            parsed, places = parse_asked(*received.kind, received.body, episode, state.settings)
            return parsed.fields.stream, episode_job(context, state, parsed, episode, places=places)

        streams, job = await received.in_thread(prepare_question)
        if streams:
            pieces = stream_answer(context, state, job)
            return await stream(context, vqa_events(pieces), error_event(context), received.held)
        return timed(await answer(context, state, job))


@router.post(
    "/episodes/{id}/poses", response_model=EpisodeState, responses=ERROR_RESPONSES, openapi_extra=MOVE_BODY
)
async def move(request: Request, id: EpisodeId) -> Response:
    """Give frames new poses, as after a loop closure: their tokens get new places."""
    async with receive(request, "/episodes", MoveFields) as received:
        context, state = received.context, received.state
        vlm = state.models().vlm
        await _take_turn(received, state.episodes.writer(id))

        def work() -> EpisodeState:
            episode = state.episodes.get(vlm, context.key, id)
            moves = parse_moves(*received.kind, received.body, episode)
            moved = state.episodes.move(vlm, context.key, id, lambda one: one.move(moves))
            return _state_of(state, moved, context.request_id)

        return json_response(await received.in_thread(work))


@router.get("/episodes", response_model=EpisodeList, responses=ERROR_RESPONSES)
async def list_episodes(request: Request) -> Response:
    """List the episodes of the key."""

    def work(state: ServiceState, key: str | None) -> EpisodeList:
        return EpisodeList(request_id=request.state.request_id, episodes=state.episodes.ids(key))

    return json_response(await _quickly(request, work))


@router.get("/episodes/{id}", response_model=EpisodeState, responses=ERROR_RESPONSES)
async def show(request: Request, id: EpisodeId, places: Places = "false") -> Response:
    """Describe an episode: its frames and tokens, and with places=true where they are."""
    wants_places = validated(ShowFields, dict(request.query_params), strict=False).places

    def work(state: ServiceState, key: str | None) -> EpisodeState:
        episode = state.episodes.get(state.models().vlm, key, id)
        return _state_of(state, episode, request.state.request_id, wants_places)

    return json_response(await _quickly(request, work))


@router.delete("/episodes/{id}", response_model=EpisodeDeleted, responses=ERROR_RESPONSES)
async def delete(request: Request, id: EpisodeId) -> Response:
    """Delete an episode, in memory and on disk."""

    def work(state: ServiceState, key: str | None) -> EpisodeDeleted:
        state.episodes.delete(key, id)
        return EpisodeDeleted(request_id=request.state.request_id, deleted=id)

    return json_response(await _quickly(request, work))


async def _take_turn(received: Received, writer: asyncio.Lock) -> None:
    """Wait for the lock of an episode no longer than the request may take, and hold it to its end."""
    turn = asyncio.ensure_future(writer.acquire())
    received.held.push_async_callback(_end_turn, turn, writer)
    await received.context.wait(turn)


async def _end_turn(turn: asyncio.Future[Any], writer: asyncio.Lock) -> None:
    """Give the lock of an episode back, or stop waiting for it."""
    turn.cancel()
    with suppress(asyncio.CancelledError):
        await turn
    if not turn.cancelled():
        writer.release()


async def _quickly(request: Request, work: Callable[[ServiceState, str | None], T]) -> T:
    """Do what needs no model in a decoding thread, for a known key."""
    state = service_state(request)
    state.origins.check(request.headers)
    key = state.keys.identify(request.headers)
    return await state.engine.decode(work, state, key)


def _state_of(state: ServiceState, episode: Episode, request_id: str, places: bool = False) -> EpisodeState:
    try:
        kept = episode.kept()
    except ServiceError:  # no frame yet, or more than a budget that drops nothing
        kept = None
    used = episode.described(kept)
    walk: dict[str, Any] = {"walk": episode.walk(kept)} if places else {}
    return EpisodeState(
        **{name: getattr(used, name) for name in used.model_fields_set},
        request_id=request_id,
        created=episode.created,
        idle_s=state.settings.episode_idle_s,
        bytes=episode.nbytes,
        fields=episode.fields.model_dump(mode="json", exclude_unset=True),
        **walk,
    )
