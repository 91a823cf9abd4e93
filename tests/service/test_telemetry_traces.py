"""A span per request with its stages, in the client's trace; a collector that is away costs nothing."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from statistics import median
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.settings import Settings
from service.telemetry import Telemetry, TracesUnavailable, configure_logging
from service.telemetry.endpoint import full_address, trace_id_of
from service.telemetry.traces import Traces
from tests.loopback import free_port
from tests.service.outcomes import TIMINGS, answer, answered, refused

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(autouse=True)
def no_sender_left() -> Iterator[None]:
    """Wait for a closed sender: its retries draw from `random`, which Hypothesis watches in other tests."""
    yield
    for thread in threading.enumerate():
        if thread.name == "last traces":
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def spans_of() -> Iterator[Any]:
    """Return the spans of an ending, by name."""
    opened: list[Traces] = []

    def spans(outcome: Any) -> dict[str, ReadableSpan]:
        kept = InMemorySpanExporter()
        traces = Traces(kept)
        opened.append(traces)
        traces.ended(outcome)
        traces.close()
        return {span.name: span for span in kept.get_finished_spans()}

    yield spans
    for traces in opened:
        traces.close()


def _ms(span: ReadableSpan) -> float:
    assert span.start_time and span.end_time
    return (span.end_time - span.start_time) / 1e6


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_is_a_span_with_a_child_for_every_stage_that_ran(spans_of: Any) -> None:
    spans = spans_of(answered(traceparent=TRACEPARENT))
    root = spans.pop("POST /vqa")
    assert format(root.context.trace_id, "032x") == TRACE
    assert root.parent and format(root.parent.span_id, "016x") == PARENT
    assert _ms(root) == pytest.approx(101, abs=0.001)
    assert {name: pytest.approx(_ms(span), abs=0.001) for name, span in spans.items()} == {
        name: ms for name, ms in TIMINGS.items() if ms is not None and name != "total"
    }
    for span in spans.values():
        assert span.parent and span.parent.span_id == root.context.span_id
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time


def test_the_span_says_what_was_merged(spans_of: Any) -> None:
    attributes = _attributes(spans_of(answered(key="robot"))["POST /vqa"])
    assert attributes["http.route"] == "/vqa" and attributes["http.response.status_code"] == 200
    assert (attributes["tosa_vqa.method"], attributes["tosa_vqa.tokens_out"], attributes["tosa_vqa.key"]) == (
        "tosa",
        144,
        "robot",
    )
    assert "error.type" not in attributes and "how many" not in str(attributes)


def test_a_comparison_has_a_span_for_each_answer(spans_of: Any) -> None:
    spans = spans_of(answered(route="/vqa/compare", answers=(answer("tosa"), answer("tome")), total_s=0.2))
    first, second = spans["answer tosa"], spans["answer tome"]
    assert first.end_time == second.start_time and _ms(second) == pytest.approx(100)
    assert _attributes(second)["tosa_vqa.method"] == "tome"


def test_errors_are_marked_and_clients_mistakes_are_not(spans_of: Any) -> None:
    failed = spans_of(refused("internal", 500, "model"))["POST /vqa"]
    wrong = spans_of(refused("bad_image", 422, "decode", route="/../etc"))["POST other"]
    assert not failed.status.is_ok and _attributes(failed)["error.type"] == "internal"
    assert wrong.status.is_unset and _attributes(wrong)["http.route"] == "other"


def test_a_trace_the_client_does_not_sample_is_not_recorded(spans_of: Any) -> None:
    assert spans_of(answered(traceparent=TRACEPARENT[:-1] + "0")) == {}


@pytest.mark.parametrize(
    "header", ["", "x", "00-" + "0" * 32 + f"-{PARENT}-01", TRACEPARENT.upper(), "é" * 99]
)
def test_a_malformed_header_begins_a_new_trace(spans_of: Any, header: str) -> None:
    root = spans_of(answered(traceparent=header))["POST /vqa"]
    assert root.parent is None and trace_id_of(header) is None


def _telemetry(address: str) -> Telemetry:
    return Telemetry(Settings(trace_endpoint=address, log_format="json"))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the process logs."""
    stream = io.StringIO()
    undo = configure_logging(Settings(log_format="json"), stream)
    yield stream
    undo()


def test_a_collector_that_is_away_slows_nothing(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.telemetry.traces.CLOSE_TIMEOUT_S", 0.5)
    monkeypatch.setattr("service.telemetry.traces.EXPORT_TIMEOUT_S", 0.1)  # its thread ends soon after
    telemetry = _telemetry(f"http://127.0.0.1:{free_port()}")
    spent = []
    for _ in range(1100):  # more spans than are kept
        start = time.thread_time()
        telemetry.ended(answered())
        spent.append(time.thread_time() - start)
    start = time.perf_counter()
    telemetry.close()
    assert time.perf_counter() - start < 30
    assert median(spent) < 0.002
    assert b'observation_failures_total{part="traces"} 0.0' in telemetry.exposition()[0]


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_spans_arrive_at_a_collector_and_the_log_names_the_trace(lines: io.StringIO) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Collector)
    server.got = []  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        telemetry = _telemetry(f"http://127.0.0.1:{server.server_port}")
        telemetry.ended(answered(traceparent=TRACEPARENT))
        telemetry.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, body),) = server.got  # type: ignore[attr-defined]
    assert path == "/v1/traces" and b"POST /vqa" in body and bytes.fromhex(TRACE) in body
    assert json.loads(lines.getvalue().splitlines()[0])["trace_id"] == TRACE


def test_the_clients_trace_is_in_the_log_without_traces_too(lines: io.StringIO) -> None:
    Telemetry(Settings()).ended(answered(traceparent=TRACEPARENT))
    assert json.loads(lines.getvalue())["trace_id"] == TRACE


def test_a_missing_package_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.telemetry.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracesUnavailable, match=r"tosa-vqa\[otel\]"):
        _telemetry("http://127.0.0.1:4318")
    Telemetry(Settings())


@pytest.mark.parametrize("address", ["", "collector:4318", "ftp://a", "http://", "http://[", "http://a:x"])
def test_a_wrong_address_is_said_at_the_start(address: str) -> None:
    with pytest.raises(TracesUnavailable, match="http://collector:4318"):
        _telemetry(address)


def test_the_usual_path_is_added_to_an_address_without_one() -> None:
    assert full_address("http://a:4318") == full_address("http://a:4318/") == "http://a:4318/v1/traces"
    assert full_address("https://a/otlp/v1/traces") == "https://a/otlp/v1/traces"
