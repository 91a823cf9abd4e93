"""Requests as OpenTelemetry spans, made when a request has ended. Needs the extra otel.

Only how long each stage took is known, so the stages of a request are drawn end to end, in their order.
"""

from __future__ import annotations

import os
from threading import Thread
from time import time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.pipeline.response_models import VqaResponse
from service.telemetry.labels import ROUTES
from service.telemetry.outcome import RequestOutcome
from service.timing import TimingsMs

EXPORT_TIMEOUT_S = 5
CLOSE_TIMEOUT_S = 1
QUEUE_SPANS = 8192  # the oldest go first when the collector is away
NS = 1_000_000_000


class Traces:
    """Send a server span per request, with a child for every stage, from a thread of its own."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "tosa-vqa")}),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=256),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("tosa-vqa")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, address: str) -> Traces:
        """Send to the full address of an OTLP/HTTP collector."""
        return cls(OTLPSpanExporter(endpoint=address, timeout=EXPORT_TIMEOUT_S))

    def ended(self, outcome: RequestOutcome) -> str:
        """Hand the spans of a request over for sending, and return its trace id."""
        end_ns = time_ns()
        start_ns = end_ns - round(outcome.total_s * NS)
        span = self._tracer.start_span(
            f"POST {ROUTES(outcome.route)}",
            self._context(outcome),
            SpanKind.SERVER,
            _about_request(outcome),
            start_time=start_ns,
        )
        if outcome.status >= 500:
            span.set_status(StatusCode.ERROR, outcome.code)
        if span.is_recording():
            self._add_parts(span, outcome, start_ns)
        span.end(end_ns)
        return format(span.get_span_context().trace_id, "032x")

    def close(self) -> None:
        """Send what is left, for a second at most."""
        sending = Thread(target=self._provider.shutdown, daemon=True, name="last traces")
        sending.start()
        sending.join(CLOSE_TIMEOUT_S)

    def _context(self, outcome: RequestOutcome) -> Context:
        carrier = {} if outcome.traceparent is None else {"traceparent": outcome.traceparent}
        return self._propagator.extract(carrier, Context())

    def _add_parts(self, span: Span, outcome: RequestOutcome, start_ns: int) -> None:
        if len(outcome.answers) < 2:
            if outcome.answers:
                span.set_attributes(_about_answer(outcome.answers[0]))
            timings = outcome.answers[0].timings_ms if outcome.answers else outcome.timings_ms
            _add_stages(self._tracer, span, timings, start_ns)
            return
        for answer in outcome.answers:
            part = self._tracer.start_span(
                f"answer {answer.merge.method}",
                set_span_in_context(span, Context()),
                attributes=_about_answer(answer),
                start_time=start_ns,
            )
            start_ns = _add_stages(self._tracer, part, answer.timings_ms, start_ns)
            part.end(start_ns)


def _add_stages(tracer: Tracer, parent: Span, timings: TimingsMs, start_ns: int) -> int:
    """Draw the stages that ran from `start_ns` on, and return when the last one ended."""
    context = set_span_in_context(parent, Context())
    for stage, spent_ms in timings.stages().items():
        span = tracer.start_span(stage, context, start_time=start_ns)
        start_ns += round(spent_ms * NS / 1000)
        span.end(start_ns)
    return start_ns


def _about_request(outcome: RequestOutcome) -> dict[str, Any]:
    known = {
        "http.request.method": "POST",
        "http.route": ROUTES(outcome.route),
        "http.response.status_code": outcome.status,
        "error.type": outcome.code,
        "tosa_vqa.request_id": outcome.request_id,
        "tosa_vqa.where": outcome.where,
        "tosa_vqa.key": outcome.key,
        "tosa_vqa.method": outcome.method,
    }
    return {name: value for name, value in known.items() if value is not None}


def _about_answer(answer: VqaResponse) -> dict[str, Any]:
    merge, usage = answer.merge, answer.usage
    return {
        "tosa_vqa.method": merge.method,
        "tosa_vqa.keep_ratio": merge.keep_ratio,
        "tosa_vqa.tokens_in": merge.tokens_in,
        "tosa_vqa.tokens_out": merge.tokens_out,
        "tosa_vqa.prop_attn": merge.prop_attn,
        "tosa_vqa.vit_flops_ratio": merge.vit_flops_ratio,
        "tosa_vqa.prompt_tokens": usage.prompt_tokens,
        "tosa_vqa.completion_tokens": usage.completion_tokens,
        "tosa_vqa.batch_size": answer.batch_size,
        "tosa_vqa.cached": answer.cached,
    }
