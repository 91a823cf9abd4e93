"""How uvicorn runs the application, and how the process ends: signals, draining, exit codes.

`application.state.service` gives the status of the process and drains it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.server.connection import Connection
from service.server.process import end_within, handled

if TYPE_CHECKING:
    from service.settings import Settings

log = logging.getLogger("tosa_vqa")

CUT = 1  # exit code: requests were still open when their time to end was over
MAX_HEADER_BYTES = 16 * 1024
BACKLOG = 1024
KEEP_ALIVE_S = 5
LINGER_S = 0.25
"""Time for requests in transit when refusing begins, and again when the listener is closed."""
LAST_WORDS_S = 1.0
"""Time for open requests when the process failed, or had not loaded yet."""
CLOSE_S = 1.5
"""Time for the application to close its threads."""


def serve(application: Any, host: str, port: int, settings: Settings) -> int:
    """Serve until a signal or `application.state.service` ends it; return the exit code of the process.

    0: asked to stop, and nothing was lost. 128 + signal: asked twice. CUT: see there. 1: the address cannot
    be had. Others: what the service gave to `end_process`.
    """
    from service.telemetry.logs import configure_logging

    configure_logging(settings)
    server = Server(application, host, port, settings)
    application.state.service.end_process = server.end_process
    application.state.service.on_ready = _freeze
    return server.listen()


def _freeze() -> None:
    """Exclude loaded objects from garbage collection, which stops all threads.

    A full round over torch and transformers takes 0.2 to 0.3 s, and would come in the middle of a request.
    """
    gc.collect()
    gc.freeze()


class Server(uvicorn.Server):
    """Drain at the first signal, exit at the second; `end_process` exits after a failure."""

    def __init__(self, application: Any, host: str, port: int, settings: Settings) -> None:
        self._goodbye = Goodbye(application)
        super().__init__(
            uvicorn.Config(
                self._goodbye,
                host=host,
                port=port,
                http=Connection,
                loop="auto",  # uvloop where it is installed
                ws="none",
                lifespan="on",
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                server_header=False,
                access_log=False,
                log_config=None,
            )
        )
        self.exit_code = 0
        self._state = application.state.service
        self._settings = settings
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._limit_s = settings.drain_timeout_s
        self._linger_s = 0.0

    def listen(self) -> int:
        """Serve until asked to end; return the exit code."""
        try:
            listener = self.config.bind_socket()
        except SystemExit:  # uvicorn has logged the reason
            return 1
        self.run(sockets=[listener])
        return self.exit_code

    @property
    def loop_name(self) -> str:
        """Name the library of the event loop, asyncio or uvloop; empty before the server runs."""
        return type(self._loop).__module__.partition(".")[0] if self._loop else ""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; unlike uvicorn, do not raise them again at its end."""
        self._loop = asyncio.get_running_loop()
        log.info("serving on the event loop of %s", self.loop_name)
        with handled(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal abort open requests and exit."""
        self._signals += 1
        if self._signals == 1:
            self._soon(self._begin_to_drain)
        else:
            self._fail(128 + sig, 0.0)

    def end_process(self, code: int) -> None:
        """Exit with this code in about a second; open responses may finish. Any thread."""
        log.critical("the process has failed and exits with code %d", code)
        self._fail(code, LAST_WORDS_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let open requests finish, close the application."""
        late = [one for listener in sockets or () for one in _accept_all(listener)]
        for server in self.servers:
            server.close()
        for one in late:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, one)
        await asyncio.sleep(self._linger_s)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._is_quiet(self._limit_s):
            await self._abort()
        end_within(CLOSE_S, self.exit_code)
        await self.lifespan.shutdown()

    def _begin_to_drain(self) -> None:
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        status, pause_s = self._state.status, self._settings.drain_pause_s
        if status == "loading":  # nothing is open, and what loads cannot be interrupted
            end_within(LAST_WORDS_S, self.exit_code)
        try:
            self._state.drain()
            self._goodbye.is_said = True
            if status == "ready":
                log.info("draining: accepting requests for %g s more; a second signal exits at once", pause_s)
                self._linger_s = LINGER_S
                await asyncio.sleep(pause_s + LINGER_S)
        finally:
            self.should_exit = True

    def _fail(self, code: int, limit_s: float) -> None:
        """Exit with this code, unless another one is set already."""
        self.exit_code = self.exit_code or code
        self._limit_s, self._linger_s = limit_s, 0.0
        self.should_exit = True
        end_within(limit_s + CLOSE_S, self.exit_code)

    def _soon(self, work: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(work)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _is_quiet(self, limit_s: float) -> bool:
        """Wait until no request or connection is open; return False at the time limit."""
        start, state = perf_counter(), self.server_state
        while True:
            await asyncio.sleep(0.02)
            if not (state.connections or state.tasks):
                return True
            if perf_counter() - start > min(limit_s, self._limit_s):
                return False

    async def _abort(self) -> None:
        """Abort open requests, then close their connections."""
        if self.server_state.tasks:
            log.error("%d open requests were aborted", len(self.server_state.tasks))
            self.exit_code = self.exit_code or CUT
            self._state.abort_open_requests()
            await self._is_quiet(LINGER_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class Goodbye:
    """Close connections with their next answer, once `is_said` is set. Pure ASGI.

    A client that keeps a connection open would send its next request just when the connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.is_said = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        is_read = not has_body

        async def read() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if self.is_said and message["type"] == "http.response.start":
                with suppress(TimeoutError):  # closed with a body on its way, the client might see no answer
                    async with asyncio.timeout(LINGER_S):
                        while not is_read:
                            await read()
                if is_read:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self.app(scope, read, answer)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept pending connections, which closing the listener would reset."""
    accepted = []
    with suppress(OSError):  # no pending connection is left
        while True:
            accepted.append(listener.accept()[0])
    return accepted
