"""What stands before the replicas in Ray's HTTP proxy. Pure ASGI, without Ray.

Ray's proxy reads every body whole before a replica sees it, without a limit, answers 500 when a replica dies,
and speaks plain text. Here bodies are bounded, frames named, lost requests asked again, refusals made ours.
Pages of other origins are refused before their bodies are read, and allowed ones may read all refusals.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from hashlib import sha256
from secrets import token_hex

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import error_body, headers_of, status_of
from service.api.middleware import request_id_of
from service.api.origins import Origins, with_cors
from service.api.sse import chunk_event
from service.api.sse import event as named_event
from service.errors import ServiceError
from service.ray_serve.bodies import EPISODE, Bodies, Body, episode_name, frame_name
from service.settings import Settings

log = logging.getLogger("tosa_vqa")
FRAME_HEADER = "x-frame-id"
EPISODE_HEADER = "x-episode-id"
TRIES = 2
QUARANTINE_S = 600.0
_MARGIN_S = 5.0  # so that the replica's own deadline answers first
_RAYS_OWN = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve_multiplexed_model_id")


def middlewares() -> list[Middleware]:
    """Return what Ray's proxy is to wrap itself in; RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it."""
    return [Middleware(Front, settings=Settings())]


class Front:
    """Bound bodies, name frames, retry lost requests, translate Ray's errors."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._answer = with_cors(self._route, settings.origins)
        self._origins = Origins(settings.origins)
        self._bodies = Bodies(settings)
        self._timeout_s = settings.request_timeout_s + _MARGIN_S
        self._lost = Lost()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._answer if scope["type"] == "http" else self.app)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/-/") and scope["path"] != "/-/healthz":
            await _refuse(ServiceError("not_found"), scope, receive, send)
        elif scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._ask(scope, Body(b"", receive), send)
        else:
            await self._read_and_ask(scope, receive, send)

    async def _read_and_ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._origins.check(Headers(scope=scope))
            with self._bodies.room() as room:
                body = await room.read(scope, receive)
                if body is not None:
                    await self._ask(scope, body, send)
        except ServiceError as refusal:
            await _refuse(refusal, scope, receive, send)

    async def _ask(self, scope: Scope, body: Body, send: Send) -> None:
        end = time.monotonic() + self._timeout_s
        self._lost.refuse(body.data)
        frame = frame_name(Headers(scope=scope).get("content-type", ""), body.data)
        path = scope["path"].removesuffix("/")
        is_new = path == "/episodes" and scope["method"] == "POST"
        episode = token_hex(16) if is_new else episode_name(path, body.data)
        if episode:  # made here when it begins, so that its first request and all others have one home
            scope = _named(scope, episode)
            frame = EPISODE + episode
        reply = Reply(send, scope["path"])
        # A frame that was lost may have been taken in: only its sender can tell, by asking the episode.
        for _ in range(1 if path.endswith("/frames") else TRIES):
            left = end - time.monotonic()
            if left <= 0:  # one loss is bad luck, and no reason to refuse it next time
                return await _refuse(ServiceError("replica_lost", retry_after_s=1), scope, body.receive, send)
            await self._try(_scope(scope, frame, left), body.receive, reply)
            if reply.is_over or body.is_abandoned:
                return
            if reply.has_started:
                return await reply.break_off(ServiceError("replica_lost", retry_after_s=1))
        self._lost.remember(body.data)
        await _refuse(ServiceError("replica_lost", retry_after_s=1), scope, body.receive, send)

    async def _try(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        try:
            await self.app(scope, receive, reply)
        except Exception:
            log.exception("Ray's proxy failed")


class Reply:
    """Pass an answer on, unless it is one of Ray's own plain texts: that one becomes a refusal of ours."""

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path = send, path
        self._refusal: Message | None = None
        self._is_stream = False
        self.has_started = False
        self.is_over = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self.is_over:
            return
        elif message["type"] == "http.response.body":
            self.is_over = not message.get("more_body", False)
            await self._send(self._refusal or message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self.has_started = True
        headers = Headers(raw=list(message["headers"]))
        refusal = refusal_of(message["status"], headers)
        self._is_stream = headers.get("content-type", "").startswith("text/event-stream")
        if refusal is not None:
            body = error_body(refusal, headers.get("x-request-id", ""), self._path)
            answer = JSONResponse(body, status_of(refusal), headers_of(refusal))
            self._refusal = {"type": "http.response.body", "body": answer.body}
            message = {**message, "status": answer.status_code, "headers": answer.raw_headers}
        await self._send(_with_each_once(message, headers.get("x-request-id", "")))

    async def break_off(self, refusal: ServiceError) -> None:
        """End an answer whose replica died: a stream with an error event, any other incomplete."""
        if self._is_stream:
            body = error_body(refusal, "", self._path)
            event = chunk_event(body) if self._path.startswith("/v1/") else named_event("error", body)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})


class Lost:
    """Remember for a while the bodies that killed two replicas in a row, and refuse them."""

    def __init__(self, seconds: float = QUARANTINE_S, most: int = 1024) -> None:
        self._seconds, self._most = seconds, most
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, body: bytes) -> None:
        """Take in a body that cost two replicas."""
        if body:
            self._until[sha256(body).digest()] = time.monotonic() + self._seconds
        while len(self._until) > self._most:
            self._until.popitem(last=False)

    def refuse(self, body: bytes) -> None:
        """Raise ServiceError for such a body."""
        if not self._until or not body:
            return
        left = self._until.get(sha256(body).digest(), 0.0) - time.monotonic()
        if left > 0:
            raise ServiceError("replica_lost", retry_after_s=int(left) + 1)


def refusal_of(status: int, headers: Headers) -> ServiceError | None:
    """Return what an answer of Ray's own means, or None if a replica gave it."""
    if not headers.get("content-type", "").startswith("text/plain"):
        return None
    after = headers.get("retry-after")
    match status:
        case 408:
            return ServiceError("deadline_exceeded")
        case 429 | 503 if after is not None:
            return ServiceError("overloaded", retry_after_s=int(after))
        case 404 | 503:  # no application or no replica yet, or not any more
            return ServiceError("not_ready", retry_after_s=5)
    return None


def _scope(scope: Scope, frame: str, timeout_s: float) -> Scope:
    fresh = {
        **scope,
        "headers": [pair for pair in scope["headers"] if pair[0].decode("latin-1") not in _RAYS_OWN],
    }
    headers = MutableHeaders(scope=fresh)
    headers["x-request-timeout-seconds"] = f"{timeout_s:.3f}"
    if frame and FRAME_HEADER not in headers:
        headers[FRAME_HEADER] = frame
    return fresh


def _named(scope: Scope, episode: str) -> Scope:
    """Return the request with the id of its episode in a header, and no other name."""
    fresh = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=fresh)
    headers[EPISODE_HEADER] = episode
    if FRAME_HEADER in headers:
        del headers[FRAME_HEADER]
    return fresh


def _with_each_once(message: Message, request_id: str) -> Message:
    """Ray adds the id once more to an answer that has it, and this front what it says about origins."""
    headers = MutableHeaders(raw=list(message["headers"]))
    del headers["x-request-id"]
    if request_id:
        headers["x-request-id"] = request_id
    if headers.get("vary") == "Origin":
        del headers["vary"]
    return {**message, "headers": headers.raw}


async def _refuse(refusal: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = request_id_of(Headers(scope=scope))
    headers = {**headers_of(refusal), "X-Request-ID": request_id}
    body = error_body(refusal, request_id, scope["path"])
    await JSONResponse(body, status_of(refusal), headers)(scope, receive, send)
