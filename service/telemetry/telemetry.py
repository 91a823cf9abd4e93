"""Receive the outcome of requests and batches; a failure of telemetry never fails a request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from service.settings import Settings
from service.telemetry.endpoint import open_traces, trace_id_of
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.outcome import RequestOutcome

log = logging.getLogger("tosa_vqa")
T = TypeVar("T")


class Telemetry:
    """Count, log and trace for one app; several apps in one process are independent.

    Raises TracesUnavailable if the settings ask for traces that cannot be sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._metrics = Metrics(settings)
        self._log = RequestLog(settings)
        self._traces = open_traces(settings)

    def ended(self, outcome: RequestOutcome) -> None:
        """Record the outcome of a request. Does not raise or block."""
        self._try("metrics", lambda: self._metrics.ended(outcome), None)
        trace_id = trace_id_of(outcome.traceparent)
        if self._traces is not None:
            trace_id = self._try("traces", lambda: self._trace(outcome), trace_id)
        self._try("log", lambda: self._log.ended(outcome, trace_id), None)

    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None:
        """Count a batch; outcome is ok, split, out_of_memory or failed."""
        self._try("metrics", lambda: self._metrics.batch_ended(method, rows, images, seconds, outcome), None)

    def frames_looked_up(self, hits: int, misses: int) -> None:
        """Count hits and misses of the frame cache."""
        self._try("metrics", lambda: self._metrics.frames_looked_up(hits, misses), None)

    def language_ended(self, outcome: str, prompt_tokens: int, cached_tokens: int | None) -> None:
        """Count an answer of a language server; outcome is ok, aborted, or the code of a fault.

        cached_tokens: of the prompt, that the server remembered; None if it does not say.
        """
        self._try(
            "metrics", lambda: self._metrics.language_ended(outcome, prompt_tokens, cached_tokens), None
        )

    def loaded(self, dtype: str) -> None:
        """Show the dtype of the model that was loaded."""
        self._try("metrics", lambda: self._metrics.loaded(dtype), None)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Expose a number as gauge tosa_vqa_<name>; `read` is called at each scrape and must not block."""
        self._metrics.watch(name, description, read)

    def exposition(self) -> tuple[bytes, str]:
        """Return the body and the content type of GET /metrics."""
        return self._metrics.exposition()

    def close(self) -> None:
        """Send the traces that are left; takes a second at most."""
        if self._traces is not None:
            self._traces.close()

    def _trace(self, outcome: RequestOutcome) -> str | None:
        return None if self._traces is None else self._traces.ended(outcome)

    def _try(self, part: str, write: Callable[[], T], otherwise: T) -> T:
        try:
            return write()
        except Exception:
            self._metrics.failed(part)
            log.exception("%s could not be written", part)
            return otherwise
