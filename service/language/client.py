"""HTTP to the language servers: the addresses of the settings and no other, and every failure a Fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from service.language.faults import of_status, of_transport
from service.settings import Settings

CONNECT_TIMEOUT_S = 5.0
CONNECT_RETRIES = 1
"""A busy process may be late itself to see a connection; nothing was sent yet, so it may try again."""
KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which vLLM closes an idle connection."""
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=KEEP_ALIVE_S)
MAX_ERROR_BYTES = 1 << 16


class LanguageClient:
    """Follow no redirects, ignore proxies of the environment, keep connections open, and send the API key."""

    def __init__(self, settings: Settings) -> None:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if settings.language_api_key is not None:
            headers["Authorization"] = f"Bearer {settings.language_api_key.get_secret_value()}"
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(settings.language_timeout_s, connect=CONNECT_TIMEOUT_S),
            transport=httpx2.AsyncHTTPTransport(limits=LIMITS, retries=CONNECT_RETRIES, trust_env=False),
            follow_redirects=False,
            trust_env=False,
        )

    async def get(self, url: str, timeout_s: float) -> bytes:
        """Return the body of a response. Raises Fault."""
        return await self._whole("GET", url, None, timeout_s)

    async def post(self, url: str, fields: dict[str, Any], timeout_s: float) -> bytes:
        """Send JSON and return the body of the response. Raises Fault."""
        return await self._whole("POST", url, json.dumps(fields).encode(), timeout_s)

    @asynccontextmanager
    async def stream(self, url: str, body: bytes) -> AsyncIterator[httpx2.Response]:
        """Send a prompt and give the response once the server has accepted it; leaving closes it.

        Raises Fault, and httpx2.HTTPError for what happens in the block.
        """
        request = self._http.build_request("POST", url, content=body)
        try:
            response = await self._http.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise of_transport(error, has_begun=False) from None
        try:
            if response.status_code != 200:
                raise of_status(response.status_code, await _beginning(response), response.headers)
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _whole(self, verb: str, url: str, body: bytes | None, timeout_s: float) -> bytes:
        try:
            response = await self._http.request(verb, url, content=body, timeout=timeout_s)
        except httpx2.HTTPError as error:
            raise of_transport(error, has_begun=False) from None
        if response.status_code != 200:
            raise of_status(response.status_code, response.content, response.headers)
        return response.content


async def _beginning(response: httpx2.Response) -> bytes:
    """Read the beginning of the body of an error, as far as it comes."""
    body = b""
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_ERROR_BYTES:
                break
    except httpx2.HTTPError:
        pass
    return body[:MAX_ERROR_BYTES]
