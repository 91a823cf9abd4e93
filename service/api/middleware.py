"""Give every request an id, and turn unexpected exceptions into the `internal` error. Pure ASGI.

A decorator middleware would hide disconnects from the handlers (Starlette's BaseHTTPMiddleware does).
"""

import logging
import re
from collections.abc import Mapping
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import error_body
from service.errors import ServiceError

log = logging.getLogger("tosa_vqa")


class RequestId:
    """Echo a well-formed X-Request-ID or make one; answer `internal` for uncaught exceptions."""

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
            body = error_body(ServiceError("internal"), request_id, scope["path"])
            await JSONResponse(body, 500)(scope, receive, send_with_id)


_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return a client's own X-Request-ID if it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _PLAIN_ID.fullmatch(given) else uuid4().hex
