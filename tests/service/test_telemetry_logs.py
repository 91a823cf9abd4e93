"""One line per request, in two forms; whatever stands in it, it stays one short line without secrets."""

from __future__ import annotations

import io
import json
import logging
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging

from service.settings import Settings
from service.telemetry import RequestOutcome, Telemetry
from service.telemetry.lines import LONGEST_BYTES, json_line, stack_line, text_line
from service.telemetry.logs import FIELDS, REQUESTS, configure_logging
from tests.service.outcomes import answer, answered, refused

FORGED = "a\r\nERROR forged\x1b[31m \x9b2J \u2028 \u202e \ud800 \x7f \x00 \x85"


@contextmanager
def logged(**settings: Any) -> Iterator[tuple[Telemetry, Callable[[], list[str]]]]:
    """A Telemetry, and the lines the process writes; afterwards logging is as it was."""
    known = Settings.model_validate({"log_format": "json", **settings})
    stream = io.StringIO()
    undo = configure_logging(known, stream)
    try:
        yield Telemetry(known), lambda: stream.getvalue().splitlines()
    finally:
        undo()


def line_of(outcome: RequestOutcome, **settings: Any) -> dict[str, Any]:
    with logged(**settings) as (telemetry, lines):
        telemetry.ended(outcome)
        (line,) = lines()
        return json.loads(line)


def test_a_request_is_one_line_with_every_field() -> None:
    line = line_of(answered(key="robot", units=1.25))
    assert set(line) == {"time", "level", "logger", "event", *FIELDS}
    assert (line["level"], line["logger"], line["event"]) == ("INFO", REQUESTS, "request")
    assert (line["method"], line["tokens_in"], line["tokens_out"]) == ("tosa", 576, 144)
    assert (line["key"], line["units"], line["batch_size"], line["cached"]) == ("robot", 1.25, 2, False)
    assert line["stages"]["vision"] == 60.0 and "estimate" not in line["stages"]
    assert (line["total_ms"], line["status"], line["code"]) == (101.0, 200, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


def test_a_comparison_lists_its_answers() -> None:
    line = line_of(answered(answers=(answer("tosa"), answer("tome"))))
    assert (line["method"], line["tokens_out"]) == (["tosa", "tome"], [144, 144])


def test_the_text_form_leaves_out_what_is_not_there() -> None:
    with logged(log_format="text") as (telemetry, lines):
        telemetry.ended(answered())
        telemetry.ended(refused())
        full, empty = lines()
    assert " INFO tosa_vqa.requests request request_id=abc route=/vqa status=200 where=done" in full
    assert "method=tosa" in full and "key=" not in full
    assert "code=overloaded" in empty and "method=" not in empty


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (answered(), "INFO"),
        (refused("bad_image", 422, "decode"), "INFO"),
        (refused("client_gone", 499, "queue"), "INFO"),
        (refused("overloaded", 503), "INFO"),
        (refused("draining", 503), "INFO"),
        (refused("deadline_exceeded", 504, "queue"), "INFO"),
        (refused("internal", 500, "model"), "ERROR"),
        (refused("numerical_error", 500, "model"), "ERROR"),
        (refused("no_estimator", 503, "decode"), "ERROR"),
    ],
)
def test_levels(outcome: RequestOutcome, level: str) -> None:
    assert line_of(outcome)["level"] == level


def test_no_question_unless_asked_for() -> None:
    for form in ("text", "json"):
        with logged(log_format=form) as (telemetry, lines):
            telemetry.ended(answered(question="where is my passport ?"))
            assert "passport" not in lines()[0]
    assert line_of(answered(question="where ?"), log_questions=True)["question"] == "where ?"
    long = line_of(answered(question="x" * 2000), log_questions=True)["question"]
    assert len(long) == 500 and long.endswith("...")
    assert "question" not in line_of(refused(question=None), log_questions=True)


def test_no_answer_and_no_bytes_are_in_the_line() -> None:
    line = json.dumps(line_of(answered(answers=(answer(answer="a secret place"),))))
    assert "secret place" not in line


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", ["request_id", "route", "code", "where", "key", "method", "question"])
@pytest.mark.parametrize("text", [FORGED, FORGED * 400, "\U0001f916" * 9000, "\x00" * 9000, '"\\' * 9000])
def test_no_value_makes_a_second_or_a_long_line(form: str, place: str, text: str) -> None:
    with logged(log_format=form, log_questions=True) as (telemetry, lines):
        telemetry.ended(answered(answers=(), **{place: text}))
        (line,) = lines()
    assert line.isprintable() and len(line.encode()) < LONGEST_BYTES
    if form == "json":
        assert json.loads(line)["status"] == 200


def test_a_line_of_many_answers_is_short() -> None:
    line = line_of(answered(answers=tuple(answer("random") for _ in range(500))))
    assert len(json.dumps(line)) < 2 * LONGEST_BYTES and line["status"] == 200


@pytest.mark.parametrize("render", [json_line, text_line])
def test_any_event_is_one_short_line(render: Callable[[dict[str, Any]], str]) -> None:
    chance = random.Random(3)
    for _ in range(60):
        event = {
            f"field{number}": "".join(map(chr, chance.choices(range(0x3000), k=chance.randrange(900))))
            for number in range(chance.randrange(60))
        }
        assert len((line := render(event)).encode()) < LONGEST_BYTES and line.isprintable()
    assert "too many fields" in render({f"field{number}": 1 for number in range(999)})


def test_the_guard_of_the_lines_can_fail() -> None:
    plain = logging.Formatter("%(message)s")
    record = logging.LogRecord("a", logging.INFO, "", 0, FORGED, None, None)
    assert len(plain.format(record).splitlines()) > 1


def test_all_loggers_speak_the_same_form(capfd: pytest.CaptureFixture[str]) -> None:
    with logged() as (_, lines):
        logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
        logging.getLogger("uvicorn.access").info("GET / %s", FORGED)
        logging.getLogger("depth.estimators.load").info("loaded")
        logging.getLogger("tosa_vqa").info("two\nlines")
        logging.getLogger("urllib3").info("nobody asked")
        logging.getLogger("urllib3").warning("a doubt")
        transformers_logging.get_logger("transformers.models").warning("two\ndoubts")
        assert list(transformers_logging.tqdm(["no bar"])) == ["no bar"] and capfd.readouterr().err == ""
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("forged\nline", UserWarning, stacklevel=1)
        written = [json.loads(line) for line in lines()]
    assert [one["event"].split("UserWarning")[-1].strip() for one in written[:5]] == [
        "Started server process [7]",
        "loaded",
        "two\nlines",
        "a doubt",
        "two\ndoubts",
    ]
    assert len(written) == 6 and "forged\nline" in written[5]["event"]


def _inner(text: str) -> None:
    raise ValueError(text)


def _outer(text: str) -> None:
    try:
        _inner(text)
    except ValueError as error:
        raise RuntimeError("could not") from error


def test_an_exception_is_one_line_that_says_where() -> None:
    with logged() as (_, lines):
        try:
            _outer("bad\nvalue" + "x" * 9000)
        except RuntimeError:
            logging.getLogger("tosa_vqa").exception("unexpected")
        (line,) = lines()
    written = json.loads(line)["exception"]
    assert written.startswith("RuntimeError: could not @ service/test_telemetry_logs.py:")
    assert " | after ValueError: bad\nvalue" in written and " _inner < " in written
    assert len(line.encode()) < LONGEST_BYTES and not re.search(r"/(tmp|work|home)/", line)


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_exception_that_cannot_speak_is_said_too() -> None:
    assert stack_line(_Mute()).startswith("_Mute: ?")


def test_a_record_that_cannot_be_written_is_one_line() -> None:
    with logged() as (_, lines):
        logging.getLogger("tosa_vqa").info("%d", "no number")
        (line,) = lines()
    assert json.loads(line)["event"] == "a log record could not be written"


def test_the_line_is_there_without_configuration(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Telemetry(Settings()).ended(answered(request_id="seen"))
    (record,) = [one for one in caplog.records if one.name == REQUESTS]
    assert isinstance(record.msg, dict) and record.msg["request_id"] == "seen"


def test_undoing_leaves_logging_as_it_was() -> None:
    names = (None, "tosa_vqa", "transformers", "uvicorn", "uvicorn.access", "uvicorn.error")

    def state() -> list[Any]:
        loggers = [logging.getLogger(name) for name in names]
        bars = transformers_logging.is_progress_bar_enabled()
        return [bars, *((one.level, one.handlers[:], one.propagate, one.disabled) for one in loggers)]

    before, shown = state(), warnings.showwarning
    with logged():
        assert state() != before
    assert state() == before and warnings.showwarning is shown


def test_the_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    undo = configure_logging(Settings())
    logging.getLogger("tosa_vqa").info("hello")
    undo()
    captured = capsys.readouterr()
    assert captured.err.endswith(" INFO tosa_vqa hello\n") and captured.out == ""
    assert sys.stderr is not None
