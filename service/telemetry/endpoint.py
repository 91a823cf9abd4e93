"""Where traces go, if anywhere: checks the setting, and loads OpenTelemetry only if it is set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.settings import Settings

if TYPE_CHECKING:
    from service.telemetry.traces import Traces

SIGNAL = "/v1/traces"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class TracesUnavailable(ValueError):
    """Traces are set but cannot be sent."""


def open_traces(settings: Settings) -> Traces | None:
    """Return what sends traces, None if the settings ask for none. Raises TracesUnavailable."""
    if settings.trace_endpoint is None:
        return None
    address = full_address(settings.trace_endpoint)
    try:
        from service.telemetry.traces import Traces
    except ModuleNotFoundError:
        raise TracesUnavailable(
            "trace_endpoint: traces need OpenTelemetry: install tosa-vqa[otel], or leave the setting out"
        ) from None
    return Traces.to(address)


def full_address(endpoint: str) -> str:
    """Add the usual path to an address without one. Raises TracesUnavailable."""
    path = _path_of(endpoint)
    if path is None:
        raise TracesUnavailable("trace_endpoint must be an address like http://collector:4318")
    return endpoint.rstrip("/") + SIGNAL if path in ("", "/") else endpoint


def _path_of(endpoint: str) -> str | None:
    """Return the path of an HTTP address, None if it is no such address."""
    try:
        parts = urlsplit(endpoint)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts.path if is_usable else None


def trace_id_of(traceparent: str | None) -> str | None:
    """Read the trace id of a W3C traceparent header; None if there is none or it is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else None
