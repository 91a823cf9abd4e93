"""The HTTP endpoints. Each handler calls the steps of lifecycle.py in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.body import parse_inspection, parse_question
from service.api.compare import CompareFields, Comparison, comparison, parse_comparison
from service.api.lifecycle import (
    Done,
    answer,
    in_thread,
    make_job,
    merged_job,
    service_state,
    stream_answer,
    timed,
)
from service.api.methods_listing import methods_listing
from service.api.openapi import COMPARE_BODY, INSPECT_BODY, VQA_BODY, VQA_STREAM
from service.api.playground import page, wants_page
from service.api.receiving import Received, receive
from service.api.request_context import RequestContext
from service.api.responses import ERROR_RESPONSES, CompareResponse, Inspected
from service.api.serialise import json_response
from service.api.sse import event, stream, text_event
from service.api.state import ServiceState
from service.budgets import Costs
from service.engine.jobs import Job, Piece
from service.errors import ServiceError
from service.errors.translation import to_service_error
from service.pipeline.inspection import image_base64, inspect, values_of
from service.pipeline.response import model_used
from service.pipeline.response_models import VqaResponse
from service.request.schemas import InspectFields, VqaFields, VqaRequest
from service.timing import StageTimer

router = APIRouter()


@router.post(
    "/vqa", response_model=VqaResponse, responses={**ERROR_RESPONSES, **VQA_STREAM}, openapi_extra=VQA_BODY
)
async def vqa(request: Request) -> Response:
    """Answer a question about one or more RGB-D frames. The clock starts with the first byte of its head."""
    async with receive(request, "/vqa", VqaFields) as received:
        context, state = received.context, received.state

        def parse() -> VqaRequest:
            return parse_question(*received.kind, received.body, state.settings)

        parsed, job = await received.in_thread(lambda: _parse(context, state, context.timer, parse))
        if parsed.merges_frames:
            job = await merged_job(context, state, parsed, job)
        if parsed.fields.stream:
            pieces = stream_answer(context, state, job)
            return await stream(context, vqa_events(pieces), error_event(context), received.held)
        return timed(await answer(context, state, job))


@router.post(
    "/vqa/compare", response_model=CompareResponse, responses=ERROR_RESPONSES, openapi_extra=COMPARE_BODY
)
async def compare(request: Request) -> Response:
    """Answer one question with several merge settings; each takes a slot, if the key has that many."""
    async with receive(request, "/vqa/compare", CompareFields) as received:
        context, state = received.context, received.state
        vlm = state.models().vlm
        parsed = await received.in_thread(
            lambda: parse_comparison(*received.kind, received.body, state.settings)
        )
        width = received.more_slots(len(parsed.requests))
        results = await _all_answers(context, state, parsed, width)
        return json_response(comparison(context.request_id, model_used(vlm), parsed, results))


@router.post(
    "/depth/inspect", response_model=Inspected, responses=ERROR_RESPONSES, openapi_extra=INSPECT_BODY
)
async def inspect_depth(request: Request) -> Response:
    """Report how a depth file is read, or refuse it as a question would. Needs no model."""
    async with receive(request, "/depth/inspect", InspectFields, needs_models=False) as received:
        return json_response(await received.in_thread(lambda: _parse_and_inspect(received)))


@router.get("/methods")
async def methods() -> dict[str, Any]:
    """List the merging methods that a request can choose."""
    return methods_listing()


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Report that the process is alive."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """Report that a request would be answered: models warm, model thread active, not shutting down."""
    service_state(request).check_ready()
    return {"status": "ready"}


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Return the metrics for Prometheus; the shipped proxy does not expose them.

    Runs in a thread, since rendering takes milliseconds.
    """
    body, media_type = service_state(request).telemetry.exposition()
    return Response(body, headers={"Content-Type": media_type})


@router.get("/", response_model=dict[str, str])
async def index(request: Request) -> Any:
    """List the addresses; a browser gets the playground, unless a setting turns it off."""
    state = service_state(request)
    if state.settings.playground and wants_page(request):
        return page(request, state)
    return {
        "service": "tosa-vqa",
        "ask": "POST /vqa",
        "compare": "POST /vqa/compare",
        "episodes": "POST /episodes",
        "groups of merged patches": "POST /vqa/overlay",
        "synthetic rooms": "POST /rooms",
        "chat": "POST /v1/chat/completions",
        "inspect depth": "POST /depth/inspect",
        "methods": "GET /methods",
        "models": "GET /v1/models",
        "ready": "GET /readyz",
        "live": "GET /livez",
        "metrics": "GET /metrics",
        "schema": "GET /openapi.json",
        "docs": "GET /docs",
    }


def _parse(
    context: RequestContext, state: ServiceState, timer: StageTimer, parse: Callable[[], VqaRequest]
) -> tuple[VqaRequest, Job]:
    """Parse a question and prepare it, once a decoding thread is free."""
    timer.mark("queue")
    parsed = parse()
    return parsed, make_job(context, state, parsed, timer)


def _parse_and_inspect(received: Received) -> Inspected:
    context, max_px = received.context, received.state.settings.max_image_px
    parsed = parse_inspection(*received.kind, received.body)
    costs = Costs()
    context.costs.append(costs)
    depth, inspected = inspect(parsed.depth, parsed.image, parsed.fields, max_px, costs)
    picture = image_base64(depth) if parsed.fields.picture else None
    values: dict[str, Any] = (
        {"values": values_of(depth, parsed.fields.values_px)} if parsed.fields.values_px else {}
    )
    return Inspected(**dict(inspected), request_id=context.request_id, picture=picture, **values)


async def _all_answers(
    context: RequestContext, state: ServiceState, parsed: Comparison, width: int
) -> list[VqaResponse | ServiceError]:
    """Answer the questions of a comparison, `width` at a time; errors do not affect the others."""
    slots = asyncio.Semaphore(width)

    async def one(question: VqaRequest) -> VqaResponse | ServiceError:
        async with slots:
            return await one_answer(question)

    async def one_answer(question: VqaRequest) -> VqaResponse | ServiceError:
        timer = StageTimer()
        try:
            _, job = await in_thread(context, state, lambda: _parse(context, state, timer, lambda: question))
            return await answer(context, state, job)
        except Exception as error:
            refusal = to_service_error(error)
            if refusal.code in ("internal", "deadline_exceeded"):
                raise
            return refusal

    return list(await asyncio.gather(*map(one, parsed.requests)))


async def vqa_events(pieces: AsyncIterator[Piece | Done]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield text_event(piece.text) if isinstance(piece, Piece) else event("answer", piece.response)


def error_event(context: RequestContext) -> Callable[[ServiceError], bytes]:
    return lambda refusal: event("error", refusal.body(context.request_id))
