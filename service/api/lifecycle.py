"""The steps of one request: check, read, admit, prepare, answer, report the outcome; routes.py calls them in
order.

Every step waits through the RequestContext, so a disconnect or a deadline cancels all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from service.api.body import receive_body
from service.api.encodings import inflate, is_gzip
from service.api.errors import status_of
from service.api.request_context import RequestContext
from service.api.serialise import json_response
from service.api.state import ServiceState
from service.budgets import Costs
from service.engine.jobs import Job, Piece
from service.episodes.asking import prepare_answer
from service.episodes.episode import Episode, episode_of
from service.errors.translation import to_service_error
from service.pipeline.frame_cache import FrameCache
from service.pipeline.models import Models
from service.pipeline.prepare import Inferred, prepare
from service.pipeline.response import respond
from service.pipeline.response_models import DepthUsed, VqaResponse
from service.request.schemas import VqaRequest
from service.server.clock import FIRST_BYTE
from service.telemetry import CLIENT_GONE, RequestOutcome
from service.timing import StageTimer, server_timing

CLIENT_LEFT = 499  # nginx's status for a client that did not wait; it is logged, not sent

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """Hold an answer as a response, and what it was made of, where a request may have several answers."""

    response: VqaResponse
    inferred: Inferred


@asynccontextmanager
async def request_scope(request: Request, route: str) -> AsyncIterator[RequestContext]:
    """Follow one request from before its body is read to the end of its response; telemetry gets the outcome.

    Raises ServiceError: origin_refused, unauthorized, budget_exceeded, overloaded, draining.
    """
    state = service_state(request)
    first_byte_s = getattr(request.state, FIRST_BYTE, None)
    context = RequestContext(route, request.state.request_id, state.settings.request_timeout_s, first_byte_s)
    status, code = 200, None
    state.open_requests.add(context)
    try:
        state.origins.check(request.headers)
        context.key = state.keys.identify(request.headers)
        with state.budgets.acquire(context.key):
            state.engine.admission.check()
            yield context
        context.where = "done"
    except (ClientDisconnect, asyncio.CancelledError):
        status, code = CLIENT_LEFT, CLIENT_GONE
        raise
    except Exception as error:
        refusal = to_service_error(error)
        status, code = status_of(refusal), refusal.code
        raise
    finally:
        state.open_requests.discard(context)
        context.cancel("disconnect" if status == CLIENT_LEFT else "shutdown")  # stop its work
        state.budgets.charge(context.key, context.units)
        state.telemetry.ended(_outcome(context, request, status, code))


async def read_body(context: RequestContext, request: Request, stack: AsyncExitStack) -> bytes:
    """Read the body, take a slot, then watch for a disconnect.

    Slot and watch last until the response is sent; a client that trickles holds no slot. Raises ServiceError.
    """
    state = service_state(request)
    has_gzip = is_gzip(request.headers)
    context.where = "body"
    try:
        with state.arrivals.enter(lambda: context.cancel("crowd")) as arrival:
            body = await context.wait(receive_body(request, state.settings, arrival))
    finally:
        context.timer.mark("receive")
    context.where = "admission"
    stack.enter_context(state.engine.admission.acquire())
    await stack.enter_async_context(context.watching(request.receive))
    context.where = "decode"
    if has_gzip:
        body = await in_thread(context, state, lambda: inflate(body, state.settings.max_body_bytes))
    return body


async def in_thread(context: RequestContext, state: ServiceState, work: Callable[[], T]) -> T:
    """Run CPU work in a decoding thread."""
    return await context.wait(state.engine.decode(work))


def make_job(
    context: RequestContext,
    state: ServiceState,
    vqa_request: VqaRequest,
    timer: StageTimer,
    stop: tuple[str, ...] = (),
) -> Job:
    """Prepare a question in a decoding thread.

    Raises what `prepare` raises, RequestCancelled, and ServiceError if no language server could answer.
    """
    context.question = vqa_request.fields.question
    state.engine.check_language()  # before any work
    job = _prepared(context, state, state.models(), vqa_request, timer)
    state.engine.check_language(job.prepared)
    return replace(job, stop=stop)


def make_trace_job(
    context: RequestContext, state: ServiceState, vqa_request: VqaRequest, timer: StageTimer
) -> Job:
    """Prepare a picture whose merging is to be shown, in a decoding thread; no language engine is needed.

    Raises what `prepare` raises, and RequestCancelled.
    """
    models = replace(state.models(), frames=FrameCache(0))  # encoded frames do not say what merged
    return replace(_prepared(context, state, models, vqa_request, timer), traces=True)


def _prepared(
    context: RequestContext, state: ServiceState, models: Models, vqa_request: VqaRequest, timer: StageTimer
) -> Job:
    context.method = vqa_request.fields.method
    context.tighten_deadline(vqa_request.fields.timeout_s)
    costs = Costs()
    context.costs.append(costs)
    prepared = prepare(models, vqa_request, state.settings, timer, context.key, costs, context.check)
    context.method = prepared.plan.method
    return Job(prepared, timer, context, costs=costs)


async def merged_job(
    context: RequestContext, state: ServiceState, vqa_request: VqaRequest, encoding: Job
) -> Job:
    """Encode the frames of a request, merge them as an episode of its own, and prepare the question."""
    context.where = "queue"
    encoded = await context.wait(state.engine.answer(encoding))
    context.where = "decode"

    def prepare_question() -> Job:
        encoding.timer.mark("queue")
        episode = episode_of(
            vqa_request.fields,
            encoding.prepared.geometry,
            encoded.visuals,
            state.models().vlm.family.separator_rows,
            vqa_request.wants_depth,
            state.settings.episode_tokens,
        )
        return _about_episode(context, state, vqa_request, episode, encoding, encoded.depth)

    return await in_thread(context, state, prepare_question)


def episode_job(
    context: RequestContext,
    state: ServiceState,
    vqa_request: VqaRequest,
    episode: Episode,
    stop: tuple[str, ...] = (),
    places: bool = False,
) -> Job:
    """Prepare a question about an episode in a decoding thread. Raises what `prepare_answer` raises."""
    context.question = vqa_request.fields.question
    context.tighten_deadline(vqa_request.fields.timeout_s)
    costs = Costs()
    context.costs.append(costs)
    state.engine.check_language()
    vlm = state.models().vlm
    prepared = prepare_answer(vlm, vqa_request, episode, state.settings, context.key, places=places)
    context.method = prepared.plan.method
    state.engine.check_language(prepared)
    context.timer.mark("preprocess")
    return Job(prepared, context.timer, context, stop, costs=costs)


def _about_episode(
    context: RequestContext,
    state: ServiceState,
    vqa_request: VqaRequest,
    episode: Episode,
    encoding: Job,
    depth: DepthUsed | None,
) -> Job:
    """Prepare the question of a request whose frames were encoded by another job."""
    vlm = state.models().vlm
    prepared = prepare_answer(vlm, vqa_request, episode, state.settings, context.key, depth)
    state.engine.check_language(prepared)
    encoding.timer.mark("preprocess")
    job = Job(prepared, encoding.timer, context, encoding.stop, costs=encoding.costs)
    job.ran_encoder = encoding.ran_encoder
    return job


async def answer(context: RequestContext, state: ServiceState, job: Job) -> VqaResponse:
    """Return the whole answer."""
    return (await answers(context, state, job)).response


async def answers(context: RequestContext, state: ServiceState, job: Job) -> Done:
    """Return the whole answer, and all answers if the job has several."""
    context.where = "queue"
    return _answered(context, state, job, await context.wait(state.engine.answer(job)))


async def stream_answer(
    context: RequestContext, state: ServiceState, job: Job
) -> AsyncIterator[Piece | Done]:
    """Yield the pieces of the answers as they are decoded, then the whole answer."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece | None]()
    job.on_piece = lambda piece: _call_soon(loop, pieces.put_nowait, piece)
    context.where = "queue"
    answered = asyncio.ensure_future(state.engine.answer(job))
    answered.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await context.wait(pieces.get())) is not None:
            yield piece
        inferred = await context.wait(answered)
    finally:
        answered.cancel()
    yield _answered(context, state, job, inferred)


def timed(done: VqaResponse, body: BaseModel | None = None) -> Response:
    """Respond with an answer, or a body made of it, and its stages in a Server-Timing header."""
    return json_response(body or done, {"Server-Timing": server_timing(done.timings_ms)})


def service_state(request: Request) -> ServiceState:
    """Return the state that all requests of this process share."""
    return request.app.state.service


def _answered(context: RequestContext, state: ServiceState, job: Job, inferred: Inferred) -> Done:
    response = respond(state.models().vlm, job.prepared, inferred, job.timer, context.request_id)
    context.answers.append(response)
    return Done(response, inferred)


def _call_soon(loop: asyncio.AbstractEventLoop, work: Callable[[Piece], None], piece: Piece) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(work, piece)


def _outcome(context: RequestContext, request: Request, status: int, code: str | None) -> RequestOutcome:
    return RequestOutcome(
        route=context.route,
        request_id=context.request_id,
        status=status,
        code=code,
        where=context.where,
        key=context.key,
        answers=tuple(context.answers),
        timings_ms=context.timer.timings_ms(),
        total_s=perf_counter() - context.arrived,
        question=context.question,
        traceparent=request.headers.get("traceparent"),
        method=context.method,
        units=context.units,
    )
