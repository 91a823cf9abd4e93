"""The endpoints below /v1/, compatible with OpenAI's API."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from service.api.chat.choices import ChoiceWriter
from service.api.chat.request import ChatRequest, check_model, parse_chat
from service.api.chat.response import ChatStream, completion, model, models
from service.api.chat.schemas import ChatCompletion, ChatErrorResponse, Delta, ServedModel, ServedModels
from service.api.episodes.bodies import question_of
from service.api.errors import error_body
from service.api.lifecycle import (
    Done,
    answers,
    episode_job,
    make_job,
    service_state,
    stream_answer,
    timed,
)
from service.api.openapi import CHAT_BODY, CHAT_STREAM
from service.api.receiving import receive
from service.api.request_context import RequestContext
from service.api.sse import DONE, chunk_event, stream
from service.api.state import ServiceState
from service.engine.jobs import Job, Piece
from service.errors import ServiceError
from service.pipeline.response import model_used

router = APIRouter()
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    kind: {"model": ChatErrorResponse} for kind in ("4XX", "5XX")
}
ModelName = Annotated[str, Path(description="Name of the model.", examples=["room-tiny"])]


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={**ERROR_RESPONSES, **CHAT_STREAM},
    openapi_extra=CHAT_BODY,
)
async def chat(request: Request) -> Response:
    """Answer the last message of a conversation about images, as OpenAI's API does."""
    async with receive(request, "/v1/chat/completions", None, json_only=True) as received:
        context, state = received.context, received.state
        chat, job = await received.in_thread(lambda: _parse_chat(context, state, received.body))
        received.more_slots(job.choices)
        writer = ChoiceWriter(context.request_id, state.models().vlm, chat.tool_use)
        if chat.stream:
            pieces = stream_answer(context, state, job)
            events = _chat_events(context, state, pieces, chat.include_usage, writer, job.choices)
            return await stream(context, events, _error_chunk(context), received.held)
        done = await answers(context, state, job)
        choices = [writer.choice(index, one) for index, one in enumerate(done.inferred.answers)]
        return timed(done.response, completion(done.response, int(time()), choices))


@router.get("/v1/models", response_model=ServedModels, responses=ERROR_RESPONSES)
async def list_models(request: Request) -> ServedModels:
    """List the model that answers, as OpenAI's API does."""
    state = service_state(request)
    state.keys.identify(request.headers)
    return models(state.models().vlm, state.started)


@router.get("/v1/models/{name:path}", response_model=ServedModel, responses=ERROR_RESPONSES)
async def show_model(request: Request, name: ModelName) -> ServedModel:
    """Describe the model that answers."""
    state = service_state(request)
    state.keys.identify(request.headers)
    check_model(name, state.settings)
    return model(state.models().vlm, state.started)


def _parse_chat(context: RequestContext, state: ServiceState, body: bytes) -> tuple[ChatRequest, Job]:
    context.timer.mark("queue")
    chat = parse_chat(body, state.settings)
    if chat.episode is not None:
        episode = state.episodes.get(state.models().vlm, context.key, chat.episode)
        asked = chat.vqa_request.fields.model_dump(exclude_unset=True)
        request = replace(chat.vqa_request, fields=question_of(episode, asked, state.settings))
        return chat, episode_job(context, state, request, episode, chat.stop)
    return chat, make_job(context, state, chat.vqa_request, context.timer, chat.stop)


async def _chat_events(
    context: RequestContext,
    state: ServiceState,
    pieces: AsyncIterator[Piece | Done],
    include_usage: bool,
    writer: ChoiceWriter,
    number: int,
) -> AsyncIterator[bytes]:
    chunks = ChatStream(context.request_id, model_used(state.models().vlm), int(time()), include_usage)
    begun: set[int] = set()
    async for piece in pieces:
        if not begun:
            for index in range(number):
                yield chunk_event(chunks.start(index, writer.start()))
        if isinstance(piece, Piece):
            logprobs = writer.logprobs(piece, is_first=piece.choice not in begun)
            begun.add(piece.choice)
            for delta in [*writer.deltas(piece)] or [Delta()] * (logprobs is not None):
                yield chunk_event(chunks.piece(delta, piece.choice, logprobs))
            continue
        for index, written in enumerate(piece.inferred.answers):
            for delta in writer.rest(index, written):
                yield chunk_event(chunks.piece(delta, index))
            yield chunk_event(chunks.end(writer.finish_reason(written), index))
        if include_usage:
            yield chunk_event(chunks.usage(piece.response))
    yield DONE


def _error_chunk(context: RequestContext) -> Callable[[ServiceError], bytes]:
    return lambda refusal: chunk_event(error_body(refusal, context.request_id, context.route))
