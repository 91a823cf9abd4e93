"""One log line per request, and one format for every logger of the process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

import structlog

from service.settings import Settings
from service.telemetry.lines import json_line, stack_line, text_line, truncate
from service.telemetry.outcome import RequestOutcome

REQUESTS = "tosa_vqa.requests"
LIBRARIES = ("uvicorn.error", "transformers", "huggingface_hub")  # they bring handlers of their own
OURS = ("tosa_vqa", "service", "vlm", "depth", "uvicorn")  # logged from INFO; other loggers from WARNING
QUESTION_CHARS = 500
_SHAPED = ("event", "exc_info")
# Errors that are no fault of the server: load, life cycle, and a deadline the client may have set.
EXPECTED = frozenset(("overloaded", "draining", "not_ready", "deadline_exceeded"))
FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "request_id": "X-Request-ID of the response",
        "trace_id": "trace of the client or of the service; null if there is none",
        "route": "address, as a template",
        "status": "HTTP status; 499 if the client left",
        "code": "error code; client_gone if the client left; null for an answer",
        "where": "how far the request came: admission, body, decode, queue, model, stream, done",
        "method": "merging method",
        "keep_ratio": "share of visual tokens that was kept",
        "tokens_in": "visual tokens before merging",
        "tokens_out": "visual tokens after merging",
        "prompt_tokens": "tokens the language model read",
        "completion_tokens": "tokens generated",
        "batch_size": "questions answered together",
        "cached": "whether every frame's encoding was remembered",
        "key": "name of the API key",
        "units": "units the key was charged",
        "stages": "milliseconds of each stage that ran",
        "total_ms": "from the first byte of the request's head to the end of the response",
    }
)


class RequestLog:
    """Write the one line of a request; with the question only if the settings say so."""

    def __init__(self, settings: Settings) -> None:
        self._with_questions = settings.log_questions
        self._log = structlog.wrap_logger(
            logging.getLogger(REQUESTS),
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def ended(self, outcome: RequestOutcome, trace_id: str | None = None) -> None:
        """Write how a request ended."""
        fields = _fields(outcome, trace_id)
        if self._with_questions and outcome.question is not None:
            fields["question"] = truncate(outcome.question, QUESTION_CHARS)
        self._log.log(level_of(outcome), "request", **fields)


def level_of(outcome: RequestOutcome) -> int:
    """Return ERROR for what should not happen here, INFO for answers, clients' mistakes and load."""
    return logging.ERROR if outcome.status >= 500 and outcome.code not in EXPECTED else logging.INFO


def configure_logging(settings: Settings, stream: TextIO | None = None) -> Callable[[], None]:
    """Bring every logger of this process to one form, on stderr or `stream`; returns what undoes it.

    Uvicorn must be told to leave logging alone: log_config=None, access_log=False.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings.log_format == "json"))
    show_progress_again = _without_progress_bars()
    loggers = [logging.getLogger(name) for name in (None, *OURS, *LIBRARIES, "uvicorn.access")]
    before = [(one, one.level, one.handlers[:], one.propagate, one.disabled) for one in loggers]
    for one in loggers:
        one.handlers, one.propagate = [], True
        one.setLevel(logging.INFO if one.name in OURS else logging.NOTSET)
    loggers[0].handlers = [handler]
    loggers[0].setLevel(logging.WARNING)
    loggers[-1].disabled = True
    logging.captureWarnings(True)

    def undo() -> None:
        logging.captureWarnings(False)
        show_progress_again()
        for one, level, handlers, propagate, disabled in before:
            one.handlers, one.propagate, one.disabled = handlers, propagate, disabled
            one.setLevel(level)

    return undo


def _without_progress_bars() -> Callable[[], None]:
    """Stop the bars that loading a model draws, which are no lines; returns what undoes it."""
    from transformers.utils import logging as transformers_logging  # the model will need it anyway

    if not transformers_logging.is_progress_bar_enabled():
        return lambda: None
    transformers_logging.disable_progress_bar()
    return transformers_logging.enable_progress_bar


class _Handler(logging.StreamHandler[TextIO]):
    """Log one fixed line if a record cannot be formatted, instead of printing a stack."""

    def handleError(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self.stream.write(json_line({"level": "ERROR", "event": "a log record could not be written"}))
            self.stream.write(self.terminator)


def _formatter(as_json: bool) -> logging.Formatter:
    render = json_line if as_json else text_line

    def line(_: Any, __: str, event: Mapping[str, Any]) -> str:
        return render(_shaped(event))

    return structlog.stdlib.ProcessorFormatter(processors=[line])


def _shaped(event: Mapping[str, Any]) -> dict[str, Any]:
    """Put first what every line has; `_record` is the record of the standard library."""
    record = event["_record"]
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields = {name: value for name, value in event.items() if name[0] != "_" and name not in _SHAPED}
    error = (event.get("exc_info") or (None, None))[1]
    stack = {} if error is None else {"exception": stack_line(error)}
    head = {"time": when, "level": record.levelname, "logger": record.name, "event": event["event"]}
    return {**head, **fields, **stack}


def _fields(outcome: RequestOutcome, trace_id: str | None) -> dict[str, Any]:
    merges = [answer.merge for answer in outcome.answers]
    usages = [answer.usage for answer in outcome.answers]
    timings = outcome.answers[0].timings_ms if len(outcome.answers) == 1 else outcome.timings_ms
    return {
        "request_id": outcome.request_id,
        "trace_id": trace_id,
        "route": outcome.route,
        "status": outcome.status,
        "code": outcome.code,
        "where": outcome.where,
        "method": _one([merge.method for merge in merges]) or outcome.method,
        "keep_ratio": _one([round(merge.keep_ratio, 4) for merge in merges]),
        "tokens_in": _one([merge.tokens_in for merge in merges]),
        "tokens_out": _one([merge.tokens_out for merge in merges]),
        "prompt_tokens": _one([usage.prompt_tokens for usage in usages]),
        "completion_tokens": _one([usage.completion_tokens for usage in usages]),
        "batch_size": _one([answer.batch_size for answer in outcome.answers]),
        "cached": _one([answer.cached for answer in outcome.answers]),
        "key": outcome.key,
        "units": round(outcome.units, 3),
        "stages": timings.stages(),
        "total_ms": round(outcome.total_s * 1000, 3),
    }


def _one(values: list[Any]) -> Any:
    """Return the value of the only answer, a list for several, None without one."""
    return values if len(values) > 1 else (values or [None])[0]
