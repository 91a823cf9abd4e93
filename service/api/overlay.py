"""POST /vqa/overlay: which patches of a picture became one token, layer by layer, and how far away they are.

The encoder runs alone, for one picture; no language model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from depth import DepthMap, patch_means, read_depth
from service.api.body import read_form
from service.api.lifecycle import make_trace_job
from service.api.openapi import OVERLAY_BODY
from service.api.receiving import Received, receive
from service.api.responses import ERROR_RESPONSES, OverlayLayer, OverlayResponse, OverlayView
from service.api.serialise import json_response
from service.engine.jobs import Job
from service.errors import ServiceError
from service.pipeline.inspection import values_of
from service.pipeline.merge_trace import MergeTrace
from service.pipeline.prepare import Inferred
from service.pipeline.response import merge_done, model_used
from service.request.schemas import OverlayFields, VqaRequest
from service.request.validation import check_counts, check_fields, validated
from service.settings import Settings
from service.timing import server_timing
from vlm import View

router = APIRouter()
UNASKED = "?"
"""The question of an overlay, which no model reads."""


@router.post(
    "/vqa/overlay",
    response_model=OverlayResponse,
    responses=ERROR_RESPONSES,
    openapi_extra=OVERLAY_BODY,
)
async def overlay(request: Request) -> Response:
    """Show which patches of a picture merge, layer by layer, and their depth; no question is answered."""
    async with receive(request, "/vqa/overlay", OverlayFields) as received:
        context, state = received.context, received.state
        shown = await received.in_thread(lambda: _prepare(received))
        context.where = "queue"
        inferred = await context.wait(state.engine.answer(shown.job))
        return await received.in_thread(lambda: _respond(received, shown, inferred))


@dataclass(frozen=True)
class Shown:
    """Hold the job of one overlay, the depth that was sent with it, and how much of it to answer with."""

    job: Job
    depth: DepthMap | None
    values_px: int


def parse_overlay(kind: bytes, boundary: bytes, body: bytes, settings: Settings) -> tuple[VqaRequest, int]:
    """Parse a body with one picture and at most one depth file; return `values_px` too.

    Raises ServiceError, DepthError.
    """
    form = read_form(kind, boundary, body, OverlayFields)
    own = validated(OverlayFields, form.fields, strict=form.is_typed)
    shared = {name: value for name, value in form.fields.items() if name != "values_px"}
    request = form.request(check_fields({**shared, "question": UNASKED}, settings, strict=form.is_typed))
    if len(request.images) != 1:
        raise ServiceError("image_count", reason="overlay_one", field="images" if form.is_typed else "image")
    check_counts(request, settings)
    return request, own.values_px


def views_of(trace: MergeTrace, views: Sequence[View], depth: DepthMap | None) -> list[OverlayView]:
    """Describe every view: the layers whose groups differ from those before, and the depth of each patch."""
    return [
        OverlayView(
            box=astuple(view.box),
            grid=trace.grid,
            depth=None if depth is None else _depth_of(depth, trace.grid, astuple(view.box)),
            layers=_layers([source[at].numpy() for source in trace.sources]),
        )
        for at, view in enumerate(views)
    ]


def _prepare(received: Received) -> Shown:
    """Prepare the job, and read the depth that was sent again, whose values the encoder does not need."""
    context, state = received.context, received.state
    context.timer.mark("queue")
    parsed, values_px = parse_overlay(*received.kind, received.body, state.settings)
    job = make_trace_job(context, state, parsed, context.timer)
    if not parsed.depths:
        return Shown(job, None, values_px)
    options = parsed.fields.format_options()
    sent, _ = read_depth(parsed.depths[0], max_pixels=state.settings.max_image_px, **options)
    return Shown(job, sent, values_px)


def _respond(received: Received, shown: Shown, inferred: Inferred) -> Response:
    assert inferred.trace is not None, "the job asked for it"
    job, depth = shown.job, inferred.trace.depth or shown.depth
    planned = job.prepared.frames[0].planned
    prefix = planned.plan.shape.num_prefix
    views = views_of(inferred.trace, planned.layout.views, depth)
    job.timer.mark("generate")
    timings = job.timer.timings_ms()
    body = OverlayResponse(
        request_id=received.context.request_id,
        model=model_used(received.state.models().vlm),
        merge=merge_done([planned]),
        depth=inferred.depth,
        tokens=[(count - prefix) // planned.plan.shape.slots for count in planned.plan.counts],
        views=views,
        timings_ms=timings,
        **({"values": values_of(depth, shown.values_px)} if depth is not None and shown.values_px else {}),
    )
    return json_response(body, {"Server-Timing": server_timing(timings)})


def _layers(sources: Sequence[NDArray[np.int64]]) -> list[OverlayLayer]:
    """Describe the layers that changed the groups; before the first one, every patch is its own group."""
    layers, before = list[OverlayLayer](), np.arange(len(sources[0]) if sources else 0)
    for layer, source in enumerate(sources):
        groups = _numbered(source)
        if not np.array_equal(groups, before):
            sizes = np.bincount(groups[groups >= 0])
            layers.append(OverlayLayer(layer=layer, groups=groups.tolist(), sizes=sizes.tolist()))
        before = groups
    return layers


def _numbered(source: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups by their first patch, from 0; -1 where a patch was dropped."""
    held = source[source >= 0]
    tokens, first, group = np.unique(held, return_index=True, return_inverse=True)
    number = np.empty(len(tokens), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(tokens))
    groups = np.full(len(source), -1)
    groups[source >= 0] = number[group]
    return groups


def _depth_of(
    depth: DepthMap, grid: tuple[int, int], box: tuple[float, float, float, float]
) -> list[float | None]:
    means = patch_means(depth, grid, box).ravel()
    return [None if np.isnan(mean) else float(f"{mean:.4g}") for mean in means]
