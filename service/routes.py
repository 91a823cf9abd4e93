"""The HTTP addresses. Each handler is the order of calls; the work is elsewhere."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.forms import content_type, parse_body, read_body, refuse_query
from service.openapi import VQA_BODY
from service.pipeline import Prepared, infer, prepare, respond
from service.schemas import DEFAULT_KEEP_RATIO, ErrorResponse, VqaResponse
from service.settings import Settings
from service.state import ServiceState
from service.timing import StageTimer, server_timing
from tosa import METHODS
from vlm import Vlm

router = APIRouter()
REFUSALS: dict[int | str, dict[str, Any]] = {kind: {"model": ErrorResponse} for kind in ("4XX", "5XX")}


@router.post("/vqa", response_model=VqaResponse, responses=REFUSALS, openapi_extra=VQA_BODY)
async def vqa(request: Request) -> JSONResponse:
    """Answer a question about one or more RGB-D frames. The clock starts when the whole request is here."""
    refuse_query(request)
    state = _state(request)
    vlm, kind = state.model(), content_type(request)
    with state.engine.admit():
        body = await read_body(request, state.settings)
        timer = StageTimer()
        prepared = await state.engine.decode(_parse_and_prepare, vlm, kind, body, state.settings, timer)
        inferred = await state.engine.infer(_wait_and_infer, vlm, prepared, timer)
    answer = respond(vlm, prepared, inferred, timer, request.state.request_id)
    return JSONResponse(answer, headers={"Server-Timing": server_timing(answer["timings_ms"])})


@router.get("/methods")
async def methods() -> dict[str, Any]:
    """List the merging methods a request can choose."""
    return {
        "methods": [
            {
                "name": method.name,
                "title": method.title,
                "paper": method.paper,
                "needs_depth": method.needs_spatial,
                "prop_attn": method.prop_attn,
            }
            for method in METHODS.values()
        ],
        "defaults": {
            "method": {"with_depth": "tosa", "without_depth": "none"},
            "keep_ratio": DEFAULT_KEEP_RATIO,
            "schedule": "constant",
            "alpha": "increase",
            "order": "raster",
        },
    }


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """Say that the model is loaded and warm; 503 until then."""
    _state(request).model()
    return {"status": "ready"}


@router.get("/")
async def index() -> dict[str, str]:
    """Say where things are."""
    return {
        "service": "tosa-vqa",
        "ask": "POST /vqa",
        "methods": "GET /methods",
        "ready": "GET /readyz",
        "live": "GET /livez",
        "schema": "GET /openapi.json",
        "docs": "GET /docs",
    }


def _state(request: Request) -> ServiceState:
    return request.app.state.service


def _parse_and_prepare(
    vlm: Vlm, kind: tuple[bytes, bytes], body: bytes, settings: Settings, timer: StageTimer
) -> Prepared:
    timer.mark("queue")
    return prepare(vlm, parse_body(*kind, body, settings), settings, timer)


def _wait_and_infer(vlm: Vlm, prepared: Prepared, timer: StageTimer) -> Any:
    timer.mark("queue")
    return infer(vlm, prepared, timer)
