"""The Prometheus metrics, and how outcomes of requests and batches update them.

Every label comes out of a closed set (labels.py), so no client can add series.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from service.pipeline.response_models import VqaResponse
from service.settings import Settings
from service.telemetry.labels import (
    CODES,
    LANGUAGE_OUTCOMES,
    METHOD_NAMES,
    OUTCOMES,
    PARTS,
    RESULTS,
    ROUTES,
    STATUSES,
    WHERES,
    key_names,
    one_method,
    status_class,
)
from service.telemetry.outcome import CLIENT_GONE, RequestOutcome
from service.telemetry.registry import PREFIX, Registry, Watched
from service.timing import TimingsMs

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Declared(NamedTuple):
    """Describe a metric for the documentation."""

    name: str
    kind: str
    labels: tuple[str, ...]
    description: str


class Metrics:
    """Count for one app, in a registry of its own."""

    def __init__(self, settings: Settings) -> None:
        self.registry = Registry()
        self.declared: list[Declared] = []
        self._keys = key_names(settings)
        self._has_servers = settings.language != "torch"
        self._watched = Watched()
        self._declare_requests()
        self._declare_answers()
        self._declare_model()
        if self._has_servers:
            self._declare_servers()
        self._start_at_zero()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.registry.register(self._watched)
        self._labels = _build(settings)
        self._build = Info(f"{PREFIX}build", "What runs here.", registry=self.registry)
        self._build.info(self._labels)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Show a number that is read at each scrape, as gauge tosa_vqa_<name>."""
        self._watched.add(name, description, read)

    def loaded(self, dtype: str) -> None:
        """Show the dtype that runs, where the settings leave it to the checkpoint."""
        self._build.info(self._labels | {"dtype": dtype})

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in the text format of Prometheus, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def ended(self, outcome: RequestOutcome) -> None:
        """Count a request, and every answer it got."""
        route, method = ROUTES(outcome.route), one_method(outcome.methods)
        self.requests.labels(route, status_class(outcome.status)).inc()
        self.request_seconds.labels(route, method).observe(outcome.total_s)
        if outcome.code == CLIENT_GONE:
            self.cancelled.labels(WHERES(outcome.where)).inc()
        elif outcome.code is not None:
            self.refused.labels(CODES(outcome.code)).inc()
        if self._keys.values and outcome.key is not None:
            self.key_requests.labels(self._keys(outcome.key)).inc()
            self.key_units.labels(self._keys(outcome.key)).inc(outcome.units)
        for answer in outcome.answers:
            self._answered(answer)
        if not outcome.answers:
            self._spent(outcome.timings_ms, method)

    def batch_ended(self, method: str, rows: int, images: int, seconds: float, outcome: str) -> None:
        """Count a batch of the model thread."""
        method = METHOD_NAMES(method)
        self.batches.labels(method, OUTCOMES(outcome)).inc()
        self.batch_rows.labels(method).observe(rows)
        self.batch_images.labels(method).observe(images)
        self.batch_seconds.labels(method).observe(seconds)

    def frames_looked_up(self, hits: int, misses: int) -> None:
        """Count frames whose encoding was remembered, and those whose was not."""
        self.frame_lookups.labels("hit").inc(hits)
        self.frame_lookups.labels("miss").inc(misses)

    def language_ended(self, outcome: str, prompt_tokens: int, cached_tokens: int | None) -> None:
        """Count an answer of a language server, and the tokens of its prompt by what the server says."""
        if not self._has_servers:
            return
        self.language_answers.labels(LANGUAGE_OUTCOMES(outcome)).inc()
        if cached_tokens is not None:
            self.language_prompt_tokens.labels("hit").inc(cached_tokens)
            self.language_prompt_tokens.labels("miss").inc(max(0, prompt_tokens - cached_tokens))

    def failed(self, part: str) -> None:
        """Count that a part of the observation itself failed."""
        self.failures.labels(PARTS(part)).inc()

    def _answered(self, answer: VqaResponse) -> None:
        merge, usage, timings = answer.merge, answer.usage, answer.timings_ms
        method = METHOD_NAMES(merge.method)
        self.answers.labels(method, "yes" if answer.cached else "no").inc()
        self.visual_in.labels(method).inc(merge.tokens_in)
        self.visual_out.labels(method).inc(merge.tokens_out)
        self.prompt_tokens.labels(method).inc(usage.prompt_tokens)
        self.generated_tokens.labels(method).inc(usage.completion_tokens)
        if answer.depth is not None and answer.depth.cached is not None:
            self.estimate_lookups.labels("hit" if answer.depth.cached else "miss").inc()
        self._spent(timings, method)
        self._spoke(timings, usage.completion_tokens, method)

    def _spent(self, timings: TimingsMs, method: str) -> None:
        for stage, spent_ms in timings.stages().items():
            self.stage_seconds.labels(stage, method).observe(spent_ms / 1000)

    def _spoke(self, timings: TimingsMs, tokens: int, method: str) -> None:
        """The end of prefill is the first token; generate is the time of those after it."""
        generate_ms = timings.generate or 0.0
        self.first_token_seconds.labels(method).observe((timings.total - generate_ms) / 1000)
        if tokens > 1:
            self.token_seconds.labels(method).observe(generate_ms / 1000 / (tokens - 1))

    def _declare_requests(self) -> None:
        self.requests = self._counter("requests", "Requests with a body, by status class.", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds",
            "From the first byte of the request's head to the end of the response.",
            "route",
            "method",
        )
        self.refused = self._counter("refused", "Requests answered by an error, by its code.", "code")
        self.cancelled = self._counter(
            "cancelled", "Requests whose client left, by how far they had come.", "where"
        )
        if self._keys.values:
            self.key_requests = self._counter("key_requests", "Requests by name of the API key.", "key")
            self.key_units = self._counter("key_units", "Units charged, by name of the API key.", "key")
        self.failures = self._counter(
            "observation_failures", "Requests that metrics, log or traces could not take.", "part"
        )

    def _declare_answers(self) -> None:
        self.answers = self._counter(
            "answers", "Answers; cached: every frame's encoding was remembered.", "method", "cached"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "Time of a stage, of one answer or of a request without one.",
            "stage",
            "method",
        )
        self.first_token_seconds = self._histogram(
            "time_to_first_token_seconds",
            "From the first byte of the request's head to the end of prefill.",
            "method",
        )
        self.token_seconds = self._histogram(
            "time_per_token_seconds", "Mean time of each generated token after the first.", "method"
        )
        self.visual_in = self._counter("visual_tokens_in", "Visual tokens before merging.", "method")
        self.visual_out = self._counter("visual_tokens_out", "Visual tokens after merging.", "method")
        self.prompt_tokens = self._counter(
            "prompt_tokens", "Tokens the language model read, visual ones included.", "method"
        )
        self.generated_tokens = self._counter("generated_tokens", "Tokens generated.", "method")
        self.estimate_lookups = self._counter(
            "estimate_cache_lookups", "Answers by estimated depth; hit: every map was remembered.", "result"
        )

    def _declare_model(self) -> None:
        self.batches = self._counter("batches", "Batches of the model thread.", "method", "outcome")
        self.batch_rows = self._histogram("batch_rows", "Questions in one batch.", "method", buckets=COUNTS)
        self.batch_images = self._histogram("batch_images", "Images in one batch.", "method", buckets=COUNTS)
        self.batch_seconds = self._histogram("batch_seconds", "From start to end of one batch.", "method")
        self.frame_lookups = self._counter(
            "frame_cache_lookups", "Frames looked for among the encoded ones.", "result"
        )

    def _declare_servers(self) -> None:
        self.language_answers = self._counter(
            "language_answers", "With language servers: their answers, and what failed there.", "outcome"
        )
        self.language_prompt_tokens = self._counter(
            "language_prompt_tokens",
            "With language servers that say so: prompt tokens; hit: remembered there.",
            "result",
        )
        for outcome in sorted(LANGUAGE_OUTCOMES.values):
            self.language_answers.labels(outcome)

    def _start_at_zero(self) -> None:
        """Initialise the counters of rare events at 0; one that first appears at 1 shows no increase."""
        for counter, *values in (
            (self.requests, ROUTES, STATUSES),
            (self.refused, CODES),
            (self.cancelled, WHERES),
            (self.batches, METHOD_NAMES, OUTCOMES),
            (self.frame_lookups, RESULTS),
            (self.estimate_lookups, RESULTS),
            (self.failures, PARTS),
        ):
            for labels in product(*(sorted(one.values) for one in values)):
                counter.labels(*labels)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        self.declared.append(Declared(f"{PREFIX}{name}_total", "counter", labels, description))
        return Counter(PREFIX + name, description, labels, registry=self.registry)

    def _histogram(
        self, name: str, description: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        self.declared.append(Declared(PREFIX + name, "histogram", labels, description))
        return Histogram(PREFIX + name, description, labels, registry=self.registry, buckets=buckets)


def _build(settings: Settings) -> dict[str, str]:
    try:
        installed = version("tosa-vqa")
    except PackageNotFoundError:
        installed = "source"
    return {"version": installed, "device": settings.device, "dtype": settings.dtype}
