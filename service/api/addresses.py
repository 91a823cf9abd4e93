"""Read HEAD as GET without a body, and an address with a slash at its end as the one without. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Addresses:
    """Rewrite the method and the path of a request before it is routed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, is_head = scope["path"], scope["method"] == "HEAD"
        meant = path[:-1] if len(path) > 1 and path.endswith("/") else path
        method = "GET" if is_head else scope["method"]
        await self.app(
            {**scope, "path": meant, "method": method}, receive, _headers_only(send) if is_head else send
        )


def _headers_only(send: Send) -> Send:
    async def send_without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_without_body
