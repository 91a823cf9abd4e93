"""Compose the application: settings in, ASGI app out."""

from service.needed import require

require()

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from depth.estimate import EstimatorError
from service.api.addresses import Addresses
from service.api.chat.routes import router as chat_router
from service.api.episodes.routes import router as episodes_router
from service.api.errors import error_body, headers_of, status_of
from service.api.middleware import RequestId
from service.api.openapi_document import Documented
from service.api.origins import add_cors
from service.api.overlay import router as overlay_router
from service.api.playground import router as playground_router
from service.api.rooms import router as rooms_router
from service.api.routes import router
from service.api.state import ServiceState
from service.api.swagger import router as swagger_router
from service.errors import ServiceError
from service.errors.translation import LIBRARY_ERRORS, to_service_error
from service.settings import Settings

log = logging.getLogger("tosa_vqa")


def create_app(
    settings: Settings | None = None, end_process: Callable[[int], None] = lambda _: None
) -> FastAPI:
    """Build the service. The models load in the background; /readyz answers 503 until they are warm.

    `end_process` is called with an exit code if the process cannot go on: the models cannot be loaded, or the
    thread that uses them is lost. It may come from any thread.
    """
    state = ServiceState(settings or Settings(), end_process)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(state.load()), asyncio.create_task(state.watch())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(state.close)

    app = Documented(
        title="tosa-vqa", lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    app.needs_key = bool(state.keys.names)
    app.state.service = state
    app.include_router(router)
    app.include_router(overlay_router)
    app.include_router(rooms_router)
    app.include_router(chat_router)
    app.include_router(episodes_router)
    app.include_router(swagger_router)
    if state.settings.playground:
        app.include_router(playground_router)
    app.add_middleware(Addresses)
    app.add_middleware(RequestId)
    if state.settings.origins:
        add_cors(app, state.settings.origins)
    for kind in (ServiceError, *LIBRARY_ERRORS, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    return app


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    refusal, request_id = to_service_error(error), request.state.request_id
    if isinstance(error, EstimatorError):
        log.error("%s (request %s)", error, request_id)
    body = error_body(refusal, request_id, request.scope["path"])
    return JSONResponse(body, status_of(refusal), headers_of(refusal))
