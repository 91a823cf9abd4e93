"""Telemetry: metrics, one log line per request, and traces."""

from service.telemetry.endpoint import TracesUnavailable
from service.telemetry.logs import configure_logging
from service.telemetry.outcome import CLIENT_GONE, RequestOutcome
from service.telemetry.telemetry import Telemetry

__all__ = ["CLIENT_GONE", "RequestOutcome", "Telemetry", "TracesUnavailable", "configure_logging"]
