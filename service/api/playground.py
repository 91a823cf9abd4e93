"""The playground: a page at GET / for browsers, of the files in page/, which load nothing from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from depth.presets import PRESET_NAMES
from service.api.state import ServiceState
from service.errors import ServiceError

router = APIRouter(include_in_schema=False)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No script and no style but ours, nothing to or from another server, and no text is ever parsed as HTML."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
LAZY = ("points.js", "orbit.js", "walk.js", "live.js", "episode.js", "folder.js")
"""Modules that are loaded when they are needed."""


@dataclass(frozen=True)
class Asset:
    """Hold a file of the page, plain and compressed."""

    data: bytes
    gzipped: bytes
    media_type: str


def wants_page(request: Request) -> bool:
    """Return whether a browser asks for the page, and not a program for the list of addresses."""
    return "text/html" in request.headers.get("accept", "")


def page(request: Request, state: ServiceState) -> Response:
    """Return the page; what it has to know of this server is in attributes of its root."""
    root = request.scope.get("root_path", "").rstrip("/")
    base = f"{escape(root)}/playground/{version()}"
    modules = sorted(name for name in assets() if name.endswith(".js") and name not in LAZY)
    preloads = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in modules)
    text = _template().replace("{base}", base).replace("{preloads}", preloads)
    for name, value in _facts(state, root).items():
        text = text.replace(f"{{{name}}}", escape(value))
    headers = {**HEADERS, "Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding"}
    return _compressed(request, text.encode(), gzip.compress(text.encode(), 6), headers, "text/html")


@router.get("/playground/{tag}/{name}")
async def asset(request: Request, tag: str, name: str) -> Response:
    """Return a file of the page; its address holds a digest of all files, so that it never changes."""
    if tag != version() or name not in assets():
        raise ServiceError("not_found")
    found = assets()[name]
    headers = {
        **HEADERS,
        "Cache-Control": "public, max-age=31536000, immutable",
        "Vary": "Accept-Encoding",
    }
    return _compressed(request, found.data, found.gzipped, headers, found.media_type)


@cache
def assets() -> dict[str, Asset]:
    """Return the files of the page by name, without the page itself."""
    found: dict[str, Asset] = {}
    for file in sorted(_folder().iterdir(), key=lambda file: file.name):
        media_type = TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            data = file.read_bytes()
            found[file.name] = Asset(data, gzip.compress(data, 9, mtime=0), media_type)
    return found


@cache
def version() -> str:
    """Return a digest of all files of the page."""
    digest = hashlib.sha256()
    for name, held in assets().items():
        digest.update(f"{name} {len(held.data)} ".encode() + held.data)
    return digest.hexdigest()[:16]


@cache
def _template() -> str:
    return (_folder() / "index.html").read_text(encoding="utf-8")


def _folder() -> Traversable:
    return files("service.api") / "page"


def _facts(state: ServiceState, root: str) -> dict[str, str]:
    return {
        "root": root,
        "needs_key": "yes" if state.keys.names else "no",
        "estimates": "yes" if state.settings.estimates_depth else "no",
        "most_compared": str(state.settings.max_compared),
        "most_bytes": str(state.settings.max_body_bytes),
        "most_chars": str(state.settings.max_question_chars),
        "presets": ",".join(name for name in PRESET_NAMES if "<" not in name),
    }


def _compressed(
    request: Request, data: bytes, gzipped: bytes, headers: dict[str, str], media_type: str
) -> Response:
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(gzipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=media_type)
    return Response(data, headers=headers, media_type=media_type)
