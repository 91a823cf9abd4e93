"""A server whose answers take as long as asked and that loads no model, run as a process of its own.

python -m tests.service.stub_server ours|plain PORT LIMIT..., the limits of `main` in its order
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import service.server.uvicorn_server
from service.server.process import exit_on_signal, exit_process
from service.server.uvicorn_server import Server


class State:
    """What the server uses of service.api.state.ServiceState, and admission, in a few lines."""

    def __init__(self, settings: Any) -> None:
        self.settings, self.status, self.is_closed = settings, "loading", False
        self.begun = 0
        self.pool = ThreadPoolExecutor(1)  # its threads are joined when the interpreter ends
        self.end_process: Any = None

    async def load(self, seconds: float) -> None:
        await asyncio.wrap_future(self.pool.submit(time.sleep, seconds))
        self.status = "ready"

    def drain(self) -> None:
        self.status = "draining"
        asyncio.get_running_loop().call_later(self.settings.drain_pause_s, setattr, self, "is_closed", True)

    def abort_open_requests(self) -> None:
        """Let open requests be cut without a word."""


def refused() -> Response:
    return JSONResponse({"error": {"code": "draining"}}, 503, {"Retry-After": "1"})


async def ready(request: Request) -> Response:
    status = request.app.state.service.status
    return JSONResponse(status, 200 if status == "ready" else 503)


async def work(request: Request) -> Response:
    if request.app.state.service.is_closed:
        return refused()
    body = await request.body()
    request.app.state.service.begun += 1
    await asyncio.sleep(float(request.query_params.get("seconds", 0)))
    return JSONResponse(len(body))


async def begun(request: Request) -> Response:
    return JSONResponse(request.app.state.service.begun)


async def close(request: Request) -> Response:
    """Begin to refuse, as at the end of the pause."""
    request.app.state.service.is_closed = True
    return Response()


async def end(request: Request) -> Response:
    threading.Thread(target=request.app.state.service.end_process, args=(70,)).start()
    return Response()


async def hang(request: Request) -> Response:
    time.sleep(600)
    return Response()


def main(
    kind: str,
    port: int,
    loading_s: float,
    pause_s: float,
    timeout_s: float,
    last_words_s: float,
    linger_s: float,
) -> int:
    settings: Any = SimpleNamespace(drain_pause_s=pause_s, drain_timeout_s=timeout_s)
    state = State(settings)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        loading = asyncio.create_task(state.load(loading_s))
        yield
        loading.cancel()
        await asyncio.to_thread(state.pool.shutdown)

    routes = [Route(f"/{one.__name__}", one) for one in (begun, close, end, hang)]
    routes += [Route("/readyz", ready), Route("/work", work, methods=["POST"])]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.service = state
    if kind == "plain":
        uvicorn.run(app, port=port)
        return 0
    service.server.uvicorn_server.LAST_WORDS_S, service.server.uvicorn_server.LINGER_S = (
        last_words_s,
        linger_s,
    )
    server = Server(app, "127.0.0.1", port, settings)
    state.end_process = server.end_process
    return server.listen()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with exit_on_signal():
        exit_process(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
