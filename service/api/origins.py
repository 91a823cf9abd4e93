"""Which web pages may ask: those of this server's own origin, and those of origins that the settings name.

A browser sends a simple form to any address, whoever's page it is on, and hides only the answer: without a
check, every page that somebody visits could make a server on their machine or network work. Browsers say
where a request comes from in headers that no page can change; other clients do not send these headers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.errors import ServiceError

EXPOSED = ("X-Request-ID", "Retry-After", "Server-Timing")
"""Headers of answers that pages of other origins may read."""
PREFLIGHT_S = 600
"""How long a browser may remember what it was allowed."""
_PORTS = {"http": "80", "https": "443"}


class Origins:
    """Hold the allowed origins; `*` stands for all."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another origin sends. Raises ServiceError (origin_refused)."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and ("*" in self._allowed or origin.lower() in self._allowed):
            return
        if site is None:  # not a browser, or one that was not asked over HTTPS or on localhost
            is_own = origin is None or _is_of(origin, headers.get("host", ""))
        else:
            is_own = site in ("same-origin", "none")  # none: somebody typed the address
        if not is_own:
            raise ServiceError("origin_refused", field="Origin")


def add_cors(app: Starlette, allowed: Sequence[str]) -> None:
    """Tell browsers that pages of these origins may ask and read; no cookies are involved.

    To be added last: what is added earlier runs inside it, so that its errors are for these pages too.
    """
    app.add_middleware(CORSMiddleware, **_cors(allowed))


def with_cors(app: ASGIApp, allowed: Sequence[str]) -> ASGIApp:
    """Return an application that also tells browsers so; the same one if no origin is allowed."""
    return CORSMiddleware(app, **_cors(allowed)) if allowed else app


def _cors(allowed: Sequence[str]) -> dict[str, Any]:
    return {
        "allow_origins": list(allowed),
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": ["*"],
        "expose_headers": EXPOSED,
        "max_age": PREFLIGHT_S,
    }


def _is_of(origin: str, host: str) -> bool:
    """Return whether an origin is the one that a Host header names; `null` is none."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    default = f":{_PORTS.get(parts.scheme, '')}"
    return parts.netloc != "" and parts.netloc.removesuffix(default) == host.lower().removesuffix(default)
