"""Every refusal names its field and its limit in its sentence: many clients show nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from depth.errors import REASONS, DepthError
from service.api.chat.output import MAX_CHOICES
from service.api.errors import PARAMS, error_body
from service.errors import ServiceError
from service.errors.naming import named, names_field, names_limit
from service.errors.table import CODES, SENTENCES
from service.errors.translation import to_service_error
from service.request.schemas import LONGEST_ANSWER
from tests.service.chats import chat
from tests.service.test_chat_request import SETTINGS, body, parse_chat
from tests.service.test_error_sentences import BOUNDED

ROOT = Path(__file__).parents[2]
LIMIT = 4321
FIELDS = ("image", "messages[0].content[1]", "depth_scale", "merge.keep_ratio", "max_new_tokens", "options")


class Raised(NamedTuple):
    """One place in the source that refuses: its code, its reason, its field where that is written out."""

    where: str
    code: str
    reason: str
    field: str | None
    has_limit: bool


def raised() -> Iterator[Raised]:
    """Read every `ServiceError(...)` of the service that takes its sentence from the table."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", None) != "ServiceError":
                continue
            words = {word.arg: word.value for word in node.keywords}
            if not isinstance(node.args[0], ast.Constant) or "sentence" in words:
                continue
            field = words.get("field")
            yield Raised(
                f"{path.name}:{node.lineno}",
                str(node.args[0].value),
                getattr(words.get("reason"), "value", ""),
                str(field.value) if isinstance(field, ast.Constant) else "any[3].thing" if field else None,
                "limit" in words,
            )


RAISED = tuple(raised())


def test_the_source_was_read() -> None:
    assert len(RAISED) > 60 and {one.code for one in RAISED} <= set(CODES)
    assert sum(one.has_limit for one in RAISED) > 8 and sum(one.field is not None for one in RAISED) > 40


@pytest.mark.parametrize("one", RAISED, ids=lambda one: one.where)
@pytest.mark.parametrize("path", ["/vqa", "/v1/chat/completions"])
def test_what_the_service_refuses_is_named(one: Raised, path: str) -> None:
    limit = LIMIT if one.has_limit else None
    error = error_body(ServiceError(one.code, reason=one.reason, field=one.field, limit=limit), "abc", path)
    check(error["error"], limit)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("path", ["/vqa", "/v1/chat/completions"])
def test_every_sentence_of_the_table_names_whatever_it_is_about(code: str, field: str, path: str) -> None:
    for reason in ("", *(reason for known, reason in SENTENCES if known == code)):
        error = error_body(ServiceError(code, reason=reason, field=field, limit=LIMIT), "abc", path)["error"]
        check(error, LIMIT)
        if path.startswith("/v1/"):
            assert error["param"] == (field if code == "unknown_field" else PARAMS.get(field, field))


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("path", ["/vqa", "/v1/chat/completions"])
def test_sentences_about_depth_name_the_parameter_that_was_sent(reason: Any, path: str) -> None:
    limit = 77 if reason in BOUNDED else None
    error = error_body(to_service_error(DepthError(reason, limit=limit)), "abc", path)["error"]
    check(error, limit)


def check(error: dict[str, Any], limit: float | None) -> None:
    field = error.get("param") or error.get("field")
    assert field is None or names_field(error["message"], field), error
    assert limit is None or names_limit(error["message"], limit), error
    assert error["message"].endswith("."), error


def test_a_sentence_without_its_field_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        check({"message": "This is wrong.", "field": "keep_ratio"}, None)
    with pytest.raises(AssertionError):
        check({"message": "keep_ratio is above 43210.", "field": "keep_ratio"}, LIMIT)
    assert named("This is wrong.", "a[1].b", 8) == "a[1].b: This is wrong (limit: 8)."
    assert named("merge.r must be at most 8.", "merge.r", 8) == "merge.r must be at most 8."


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("value", "limit"), [(0, 1), (LONGEST_ANSWER + 1, LONGEST_ANSWER), (2.5, None)])
def test_the_length_is_called_as_it_was_sent(name: str, value: float, limit: float | None) -> None:
    sent = chat(max_tokens=...) | {name: value}
    with pytest.raises(ServiceError) as caught:
        parse_chat(body(sent), SETTINGS)
    error = error_body(caught.value, "abc", "/v1/chat/completions")["error"]
    assert (error["code"], error["param"], error.get("limit")) == ("bad_generation", name, limit)
    assert error["message"].startswith(f"{name} must be") and "max_new_tokens" not in error["message"]
    check(error, limit)


def test_of_two_lengths_the_newer_one_decides() -> None:
    assert parse_chat(body(chat(max_completion_tokens=5)), SETTINGS).vqa_request.fields.max_new_tokens == 5
    with pytest.raises(ServiceError) as caught:
        parse_chat(body(chat(max_completion_tokens=0)), SETTINGS)
    assert caught.value.field == "max_completion_tokens"


@pytest.mark.parametrize("number", [0, MAX_CHOICES + 1, 1.5, True, "2"])
def test_the_number_of_choices_says_its_limit(number: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_chat(body(chat(n=number)), SETTINGS)
    assert caught.value.message == "n must be an integer at least 1 and at most 8."
