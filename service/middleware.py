"""Give every request an id and make sure that nothing but our own errors ever leaves. Pure ASGI.

A decorator middleware would hide disconnects from the handlers (Starlette's BaseHTTPMiddleware does).
"""

import logging
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError

log = logging.getLogger("tosa_vqa")
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Echo a well-formed X-Request-ID or make one; answer `internal` for whatever nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _PLAIN_ID.fullmatch(given) else uuid4().hex
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
            await JSONResponse(ApiError("internal").body(request_id), 500)(scope, receive, send_with_id)
