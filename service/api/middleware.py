"""Give every request an id and make sure that nothing but our own errors ever leaves. Pure ASGI.

A decorator middleware would hide disconnects from the handlers (Starlette's BaseHTTPMiddleware does).
"""

import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.chat.response import error_body
from service.errors import ApiError
from service.identity import request_id_of

log = logging.getLogger("tosa_vqa")


class RequestId:
    """Echo a well-formed X-Request-ID or make one; answer `internal` for whatever nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("client went away (request %s)", request_id)
        except Exception:
            log.exception("unexpected error (request %s)", request_id)
            if has_started:
                raise
            body = error_body(ApiError("internal"), request_id, scope["path"])
            await JSONResponse(body, 500)(scope, receive, send_with_id)
