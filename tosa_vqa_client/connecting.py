"""What both clients give httpx: the address, the key, and how long each part of a request may take."""

from __future__ import annotations

from typing import Any

import httpx

from tosa_vqa_client.errors import ClientError, ConnectionFailed
from tosa_vqa_client.retries import Attempts

KEEP_ALIVE_S = 4.5
"""Shorter than the service's 5 s, so that an idle connection is not used just when the service closes it."""
_LONGEST_CONNECT_S = 10.0


def http_options(url: str, api_key: str | None, trust_env: bool) -> dict[str, Any]:
    """Return the options of an httpx client. Raises ValueError for an address without http:// or https://."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the address of a service begins with http:// or https://, and this is {url}")
    return {
        "base_url": url,
        "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        "limits": httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
        "trust_env": trust_env,
    }


def timeouts(left_s: float | None) -> httpx.Timeout:
    """Return how long the parts of a request may take, with this much time left."""
    connect_s = _LONGEST_CONNECT_S if left_s is None else min(left_s, _LONGEST_CONNECT_S)
    return httpx.Timeout(left_s, connect=connect_s)


def client_error(error: httpx.TransportError, attempts: Attempts, url: str) -> ClientError:
    """Return the error of this client for one of httpx."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return attempts.late()
    said = str(error) or type(error).__name__
    return ConnectionFailed(f"no connection to {url}: {said}. Is the service running there?")
