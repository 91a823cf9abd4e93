"""The addresses below /v1/, as OpenAI's clients know them. Each handler is the order of calls."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from service.api.body import content_type
from service.api.chat.request import ChatRequest, check_model, parse_chat
from service.api.chat.response import ChatStream, completion, model, models
from service.api.chat.schemas import ChatCompletion, ChatErrorResponse, ServedModel, ServedModels
from service.api.errors import error_body
from service.api.lifecycle import (
    answer,
    in_thread,
    make_job,
    receive,
    service_state,
    speak,
    timed,
    visit,
)
from service.api.openapi import CHAT_BODY, CHAT_STREAM
from service.api.request_context import Call
from service.api.sse import DONE, chunk_event, stream
from service.api.state import ServiceState
from service.engine.jobs import Job
from service.errors import ServiceError
from service.pipeline.response import model_used
from service.pipeline.response_models import VqaResponse

router = APIRouter()
REFUSALS: dict[int | str, dict[str, Any]] = {kind: {"model": ChatErrorResponse} for kind in ("4XX", "5XX")}
ModelName = Annotated[str, Path(description="Name of the model.", examples=["room-tiny"])]


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={**REFUSALS, **CHAT_STREAM},
    openapi_extra=CHAT_BODY,
)
async def chat(request: Request) -> Response:
    """Answer the last message of a conversation about pictures, as OpenAI's API does."""
    state = service_state(request)
    async with AsyncExitStack() as stack:
        call = await stack.enter_async_context(visit(request, "/v1/chat/completions"))
        if content_type(request)[1]:
            raise ServiceError("unsupported_media_type")
        state.models()
        body = await receive(call, request, stack)
        chat, job = await in_thread(call, state, lambda: _parse_chat(call, state, body))
        if chat.stream:
            said = speak(call, state, job)
            events = _chat_events(call, state, said, chat.include_usage)
            return await stream(call, events, _error_chunk(call), stack)
        done = await answer(call, state, job)
        return timed(done, completion(done, int(time())))
    raise AssertionError("the stack swallows nothing")


@router.get("/v1/models", response_model=ServedModels, responses=REFUSALS)
async def list_models(request: Request) -> ServedModels:
    """List the model that answers, as OpenAI's API does."""
    state = service_state(request)
    state.keys.identify(request.headers)
    return models(state.models().vlm, state.started)


@router.get("/v1/models/{name:path}", response_model=ServedModel, responses=REFUSALS)
async def show_model(request: Request, name: ModelName) -> ServedModel:
    """Describe the model that answers."""
    state = service_state(request)
    state.keys.identify(request.headers)
    check_model(name, state.settings)
    return model(state.models().vlm, state.started)


def _parse_chat(call: Call, state: ServiceState, body: bytes) -> tuple[ChatRequest, Job]:
    call.timer.mark("queue")
    chat = parse_chat(body, state.settings)
    return chat, make_job(call, state, chat.asked, call.timer, chat.stop)


async def _chat_events(
    call: Call, state: ServiceState, said: AsyncIterator[str | VqaResponse], include_usage: bool
) -> AsyncIterator[bytes]:
    chunks = ChatStream(call.request_id, model_used(state.models().vlm), int(time()), include_usage)
    is_first = True
    async for piece in said:
        if is_first:
            is_first = False
            yield chunk_event(chunks.start())
        if isinstance(piece, str):
            yield chunk_event(chunks.text(piece))
            continue
        yield chunk_event(chunks.end(piece.finish_reason))
        if include_usage:
            yield chunk_event(chunks.usage(piece))
    yield DONE


def _error_chunk(call: Call) -> Callable[[ServiceError], bytes]:
    return lambda refusal: chunk_event(error_body(refusal, call.request_id, call.route))
