"""Compose the application: settings in, ASGI app out. Holds no request logic."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from depth import DepthError
from service.errors import ApiError, to_api_error
from service.middleware import RequestId
from service.routes import router
from service.settings import Settings
from service.state import ServiceState
from tosa import PlanError
from vlm import VlmError


def create_app(
    settings: Settings | None = None, on_load_failure: Callable[[], None] = lambda: None
) -> FastAPI:
    """Build the service. The model loads in the background; /readyz answers 503 until it is warm.

    `on_load_failure` is called if it cannot be loaded, so that whoever runs the server can stop it.
    """
    state = ServiceState(settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(state.load(on_load_failure))
        yield
        loading.cancel()
        await asyncio.to_thread(state.engine.close)

    app = FastAPI(title="tosa-vqa", lifespan=lifespan, redirect_slashes=False, redoc_url=None)
    app.state.service = state
    app.include_router(router)
    app.add_middleware(RequestId)
    for kind in (ApiError, DepthError, PlanError, VlmError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    return app


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    refusal = to_api_error(error)
    headers = error.headers if isinstance(error, HTTPException) else refusal.headers  # Allow, with a 405
    return JSONResponse(refusal.body(request.state.request_id), refusal.kind.status, headers)
