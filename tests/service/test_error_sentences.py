"""What our libraries say of a request reaches the client word for word, with field, limit and choices."""

from __future__ import annotations

import ast
import base64
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.errors.translation as translation
import service.pipeline.prepare as prepare
import tosa
from depth.errors import REASONS, DepthError
from depth.estimate import EstimatorError
from service.errors import ServiceError
from service.errors.naming import named, names_field
from service.errors.translation import LibraryError
from service.request.validation import is_plain
from tests.fuzz.sentences import is_ours
from tests.service.conftest import Question
from tests.service.files import IMAGE
from tosa import METHODS, EncoderShape, MergeSpec, PlanError, make_plan
from vlm import GenerationParams, VlmError

SHAPE = EncoderShape(3, (4, 4))
WINDOWS = EncoderShape(4, (8, 8), window=(4, 4), global_layers=(3,))
STRANGE = "<b>\r\n"
PLANS: list[tuple[MergeSpec, EncoderShape, float | None]] = [
    (MergeSpec("zip"), SHAPE, None),
    (MergeSpec(STRANGE), SHAPE, None),
    (MergeSpec("tome"), SHAPE, None),
    (MergeSpec("tome", keep_ratio=0.5, r=1), SHAPE, None),
    (MergeSpec("tome", keep_ratio=2), SHAPE, 1),
    (MergeSpec("tome", keep_ratio=0), SHAPE, 0),
    (MergeSpec("tome", keep_ratio="x"), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("tome", keep_ratio=0.01), SHAPE, 0.0938),
    (MergeSpec("tome", r_hw=(1, 1)), SHAPE, None),
    (MergeSpec("tome", r=1, layers=(3,)), SHAPE, 2),
    (MergeSpec("tome", r=1, layers=tuple(range(400))), SHAPE, 2),
    (MergeSpec("tome", r=1, layers="x"), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("tome", r=1, spatial_kernel=STRANGE), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("tome", r=1, options={STRANGE: 1}), SHAPE, None),
    (MergeSpec("tome", r=1, options={"margin": 1}), SHAPE, None),
    (MergeSpec("pitome", r=1, options={"margin": 3}), SHAPE, 1),
    (MergeSpec("pitome", r=1, options={"margin": -3}), SHAPE, -1),
    (MergeSpec("pitome", r=1, options={"margin": STRANGE}), SHAPE, None),
    (MergeSpec("pitome", r=1, options={"variant": STRANGE}), SHAPE, None),
    (MergeSpec("expedite", keep_ratio=0.25, options={"neighbourhood": 2}), SHAPE, None),
    (MergeSpec("tome", r=1, options=3), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("cubist", r_hw=(20, 20)), EncoderShape(24, (24, 24)), 12),
    (MergeSpec("pool", r_hw=(0, 4)), SHAPE, 3),
    (MergeSpec("pool", r_hw=(-1, 0)), SHAPE, 0),
    (MergeSpec("pool", r_hw=(1, 0), schedule="decreasing"), SHAPE, None),
    (MergeSpec("pool", r=1), SHAPE, None),
    (MergeSpec("tome", r=-1), SHAPE, 0),
    (MergeSpec("tome", r=(1,) * 9), SHAPE, 3),
    (MergeSpec("tome", r=(1,), schedule=0.5), SHAPE, None),
    (MergeSpec("tome", r=1, schedule=STRANGE), SHAPE, None),
    (MergeSpec("tome", r=1, schedule=-2.0), SHAPE, -1),
    (MergeSpec("tosa", r=1, alpha=STRANGE), SHAPE, None),
    (MergeSpec("tosa", r=1, alpha=1.5), SHAPE, 1),
    (MergeSpec("tosa", r=1, alpha=(0.5, 0.5)), SHAPE, 3),
    (MergeSpec("tome", r=1, order=STRANGE), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("tome", r=1, prop_attn="x"), SHAPE, None),  # type: ignore[arg-type]
    (MergeSpec("none", keep_ratio=0.5), SHAPE, None),
    (MergeSpec("tome", keep_ratio=0.5), WINDOWS, None),
]
BOUNDED = ("too_large", "tiff_row")  # by what the caller says
GENERATIONS = ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 2.0})
OF_MODELS = [
    VlmError("prompt_too_long", "the model takes 8 tokens.", limit=8),
    VlmError("unsupported_turns", "No."),
]


def planned(spec: MergeSpec, shape: EncoderShape) -> PlanError:
    with pytest.raises(PlanError) as caught:
        make_plan(spec, shape)
    return caught.value


def generation(wrong: dict[str, Any]) -> VlmError:
    with pytest.raises(VlmError) as caught:
        GenerationParams(**wrong)
    return caught.value


PLAN_ERRORS = [planned(spec, shape) for spec, shape, _ in PLANS]
ERRORS: list[LibraryError] = [
    *PLAN_ERRORS,
    *(DepthError(reason, limit=77 if reason in BOUNDED else None) for reason in REASONS),
    *map(generation, GENERATIONS),
    *OF_MODELS,
    EstimatorError("estimate_failed", "the depth estimator gave nothing."),
]


def check_word_for_word(client: TestClient, question: Question, error: LibraryError) -> None:
    """Raise an error in the middle of a request, and compare what the client reads with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "plan_request", _raising(error))
        refused = question.post(client, "json").json()["error"]
        chat = client.post("/v1/chat/completions", json=_chat()).json()["error"]
    choices = None if error.choices is None else list(error.choices)
    assert refused["message"] == named(str(error), error.field, error.limit)
    assert chat["message"] == _for_chat(refused["message"], error.field, chat["param"])
    assert (refused.get("field"), refused.get("limit"), refused.get("choices")) == (
        error.field,
        error.limit,
        choices,
    )
    assert (chat["code"], chat.get("limit"), chat.get("choices")) == (refused["code"], error.limit, choices)


def _for_chat(message: str, field: str | None, param: str | None) -> str:
    """Name the parameter where a sentence names our own field, as in depth.scale for depth_scale."""
    is_renamed = field is not None and "_" in field and not names_field(message, str(param))
    return named(message.replace(str(field), str(param)) if is_renamed else message, param, None)


def _raising(error: Exception) -> Any:
    def plan_request(*_: object, **__: object) -> None:
        raise error

    return plan_request


def _chat() -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "how many ?"}]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.code}-{str(error)[:40]}")
def test_a_sentence_arrives_word_for_word(
    client: TestClient, question: Question, error: LibraryError
) -> None:
    check_word_for_word(client, question, error)


def test_a_vaguer_sentence_is_noticed(
    client: TestClient, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "_passed_on", lambda error, code: ServiceError(code, field=error.field))
    for error in PLAN_ERRORS:
        with pytest.raises(AssertionError):
            check_word_for_word(client, question, error)


def test_every_code_of_the_planner_was_walked() -> None:
    codes = set()
    for path in Path(tosa.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "PlanError":
                first = node.args[0]
                codes |= {first.value} if isinstance(first, ast.Constant) else set()
    fields = {
        "keep_ratio",
        "r",
        "r_hw",
        "schedule",
        "layers",
        "alpha",
        "prop_attn",
        "order",
        "spatial_kernel",
    }
    walked = {error.code for error in PLAN_ERRORS}
    assert codes <= walked and {"incompatible", "wrong_budget", "bad_option"} <= codes
    assert {f"bad_{field}" for field in fields} <= walked


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.code}-{str(error)[:40]}")
def test_a_sentence_names_its_field_and_its_limit(error: LibraryError) -> None:
    sentence = str(error)
    assert sentence.endswith(".") and len(sentence) < 400
    if isinstance(error, PlanError) and error.field != "options":
        assert error.field in sentence
    if isinstance(error, DepthError) and error.field != "depth":
        assert error.field in sentence
    assert error.limit is None or str(error.limit) in sentence
    assert STRANGE not in sentence


@pytest.mark.parametrize(("spec", "shape", "limit"), PLANS, ids=str)
def test_the_limit_is_the_bound_that_was_passed(
    spec: MergeSpec, shape: EncoderShape, limit: float | None
) -> None:
    assert planned(spec, shape).limit == limit


@pytest.mark.parametrize(
    ("fields", "message", "extra"),
    [
        ({"keep_ratio": 1.5}, "keep_ratio must be above 0 and at most 1.", {"limit": 1}),
        ({"keep_ratio": 0}, "keep_ratio must be above 0 and at most 1.", {"limit": 0}),
        ({"keep_ratio": "half"}, "keep_ratio must be a number above 0 and at most 1.", {}),
        ({"r": -1}, "r must be at least 0.", {"limit": 0}),
        ({"r": [3, -1]}, "Each number of r must be at least 0.", {"limit": 0}),
        ({"r": "many"}, "r must be a count, or a list with a count for each layer.", {}),
        ({"r_hw": [1] * 3}, "r_hw must be two counts, (rows, columns), with at most 2 values.", {"limit": 2}),
        ({"temperature": 3}, "temperature must be at least 0 and at most 2.", {"limit": 2}),
        ({"top_p": 0}, "top_p must be above 0 and at most 1.", {"limit": 0}),
        ({"timeout_s": -1}, "timeout_s must be above 0 and at most 86400.", {"limit": 0}),
        ({"depth_scale": 1e7}, "depth_scale must be at least 1e-06 and at most 1e+06.", {"limit": 1e6}),
        ({"seed": 2**63}, "seed must be at least 0 and below 9223372036854775808.", {"limit": 2**63}),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1 and at most 2147483647.", {"limit": 1}),
        ({"prop_attn": "perhaps"}, "prop_attn must be true or false.", {}),
        ({"depth_invalid": ["x"]}, "depth_invalid must be a list of at most 16 numbers.", {}),
        ({"order": "x" * 33}, "order must be raster or merge.", {"choices": ["raster", "merge"]}),
        ({"question": "x" * 2001}, "The question may have at most 2000 characters.", {"limit": 2000}),
        ({"method": "pitome", "options": {"margin": 3}},
         "pitome: margin must be a number from -1 to 1, got 3.", {"limit": 1}),
        ({"method": "pitome", "options": {"edge": 3}},
         "pitome has no option 'edge'; it has variant, margin, alpha.",
         {"choices": ["variant", "margin", "alpha"]}),
        ({"method": "cubist", "r_hw": [4, 4]},
         "r_hw (4, 4) is too much: layer 1 can remove (2, 2) at most.", {"limit": 2}),
        ({"layers": [0, 3]}, "layers must be different numbers from 0 to 2, got (0, 3).", {"limit": 2}),
        ({"alpha": 1.5}, "alpha must lie in [0, 1], got 1.5.", {"limit": 1}),
        ({"schedule": "zigzag"},
         "schedule must be constant, decreasing, increasing or a number in [-1, 1], got 'zigzag'.",
         {"choices": ["constant", "decreasing", "increasing"]}),
        ({"depth_kind": "feet"}, "depth_kind is metric, inverse or relative.",
         {"choices": ["metric", "inverse", "relative"]}),
        ({"ratio": 1}, "This server does not know the field ratio.", None),
        ({"max_tokens": 9},
         "This server does not know the field max_tokens; one with a similar name is max_new_tokens.", None),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_bounds(
    client: TestClient,
    question: Question,
    form: str,
    fields: dict[str, Any],
    message: str,
    extra: dict[str, Any] | None,
) -> None:
    error = question.but(**fields).post(client, form).json()["error"]
    assert error["message"] == message
    assert extra is None or {key: error[key] for key in error.keys() & {"limit", "choices"}} == extra
    assert is_ours(message)


def test_only_plain_words_of_a_client_are_repeated() -> None:
    assert "'zip'" in str(PLAN_ERRORS[0]) and "another text" in str(PLAN_ERRORS[1])
    assert is_plain("zip") and not is_plain(STRANGE)
    assert all(name in str(PLAN_ERRORS[0]) for name in METHODS)


@pytest.mark.parametrize("message", ["The body is wrong.", "No.", f"unknown method {STRANGE}; known: tome."])
def test_other_words_are_not_ours(message: str) -> None:
    assert not is_ours(message)
