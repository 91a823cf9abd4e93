"""POST /vqa/compare, the request and the body of its answer: one question, several merge settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from depth import DepthError
from service.api.compare import Comparison, comparison, parse_comparison
from service.api.responses import CompareResponse
from service.errors import ServiceError
from service.errors.translation import to_service_error
from service.pipeline.response_models import Answered, VqaResponse
from service.request.schemas import MERGE_FIELDS
from service.settings import Settings
from tests.service.answers import ANSWER, BODY, answered, sent
from tests.service.chats import uri
from tests.service.conftest import Question, running
from tests.service.files import DEPTH, IMAGE
from tosa import UnknownMethod

SETTINGS = Settings(max_images=3, max_compared=4)
SPECS = [{"method": "none"}, {"method": "tome", "keep_ratio": 0.5}, {"method": "tosa", "r": [2, 0]}]
URL = "/vqa/compare"
Sent = dict[str, Any]


def parse(form: str, images: int = 1, depths: int = 1, **fields: Any) -> Comparison:
    """Parse a comparison that is right but for what is given; ... leaves a field out."""
    given = {"question": "how many ?", "max_new_tokens": 4, "specs": SPECS, **fields}
    given = {name: value for name, value in given.items() if value is not ...}
    if form == "json":
        files = {"images": [_base64(IMAGE)] * images, "depths": [_base64(DEPTH)] * depths}
        return parse_comparison(b"application/json", b"", json.dumps({**files, **given}).encode(), SETTINGS)
    files = [_part("image", IMAGE, "; filename=a")] * images + [
        _part("depth", DEPTH, "; filename=a")
    ] * depths
    texts = [_part(name, _text(value).encode("utf-8", "surrogatepass")) for name, value in given.items()]
    return parse_comparison(b"multipart/form-data", b"b", b"".join([*files, *texts]) + b"--b--\r\n", SETTINGS)


def _base64(data: bytes) -> str:
    return uri(data).partition(",")[2]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _part(name: str, data: bytes, more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def refused(form: str, **changes: Any) -> ServiceError:
    with pytest.raises((ServiceError, UnknownMethod)) as caught:
        parse(form, **changes)
    return to_service_error(caught.value)


def test_one_question_for_each_spec(form: str) -> None:
    compared = parse(form, seed=7, depth_scale=5000)
    assert [one.fields.method for one in compared.requests] == ["none", "tome", "tosa"]
    assert [one.fields.r for one in compared.requests] == [None, None, [2, 0]]
    assert all(
        (one.fields.seed, one.fields.depth_scale, one.fields.stream) == (7, 5000, False)
        for one in compared.requests
    )
    assert list(map(sent, compared.specs)) == SPECS
    assert all(
        one.images[0] is compared.requests[0].images[0] for one in compared.requests
    )  # the bytes are there once
    assert compared.requests[0].images == (IMAGE,) and compared.requests[0].depths == (DEPTH,)


def test_a_spec_may_set_every_merge_field(form: str) -> None:
    spec = {
        "method": "saint",
        "keep_ratio": 0.5,
        "r": 2,
        "r_hw": [1, 1],
        "layers": [0],
        "schedule": "decreasing",
        "alpha": [0.5],
        "spatial_kernel": "distance",
        "options": {"tau": 0.9},
        "prop_attn": True,
        "order": "merge",
    }
    chosen = [{"method": "auto", "target_ms": 50.0}, {"method": "auto", "target_accuracy": 0.9}]
    assert {name for one in (spec, *chosen) for name in one} == set(MERGE_FIELDS)
    assert [sent(one) for one in parse(form, specs=[spec, *chosen]).specs] == [spec, *chosen]


def test_null_means_not_sent(form: str) -> None:
    compared = parse(form, specs=[{"method": None, "r": None}, {}])
    assert [sent(one) for one in compared.specs] == [{}, {}] and compared.requests[0] == compared.requests[1]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"specs": ...}, "compare_count", "specs"),
        ({"specs": []}, "compare_count", "specs"),
        ({"specs": [{}] * 5}, "compare_count", "specs"),
        ({"specs": {"method": "none"}}, "compare_count", "specs"),
        ({"specs": [["method", "none"]]}, "compare_count", "specs[0]"),
        ({"specs": [{}, None]}, "compare_count", "specs[1]"),
        ({"specs": [{}, {"ratio": 1}]}, "unknown_field", "specs[1].ratio"),
        ({"specs": [{"question": "x"}]}, "unknown_field", "specs[0].question"),
        ({"specs": [{"stream": True}]}, "unknown_field", "specs[0].stream"),
        ({"specs": [{"depth": "none"}]}, "unknown_field", "specs[0].depth"),
        ({"specs": [{"<": 1}]}, "unknown_field", "specs[0]"),
        ({"specs": [{}, {"method": "zip"}]}, "unknown_method", "specs[1].method"),
        ({"specs": [{"keep_ratio": "0.5"}]}, "keep_ratio_out_of_range", "specs[0].keep_ratio"),
        ({"specs": [{"keep_ratio": 2}]}, "keep_ratio_out_of_range", "specs[0].keep_ratio"),
        ({"specs": [{"r": True}]}, "bad_merge_spec", "specs[0].r"),
        ({"specs": [{"options": {"a": []}}]}, "bad_option", "specs[0].options"),
        ({"specs": [{"method": "\ud800"}]}, "unknown_method", "specs[0].method"),
        ({"keep_ratio": 0.5}, "unknown_field", "keep_ratio"),
        ({"stream": True}, "unknown_field", "stream"),
        ({"ratio": 0.5}, "unknown_field", "ratio"),
        ({"question": " "}, "empty_question", "question"),
        ({"question": ...}, "empty_question", "question"),
        ({"max_new_tokens": 2**31}, "bad_generation", "max_new_tokens"),
        ({"images": 4, "depths": 0}, "image_count", "image"),
        ({"depths": 2}, "depth_count", "depth"),
    ],
)
def test_what_is_refused(form: str, changes: Sent, code: str, field: str) -> None:
    error = refused(form, **changes)
    assert (error.code, error.field) == (code, field)


def test_a_depth_unit_said_twice_is_refused(form: str) -> None:
    with pytest.raises(DepthError):
        parse(form, depth_preset="tum", depth_scale=1000)


def test_help_is_given(form: str) -> None:
    assert refused(form, specs=[{}] * 5).limit == SETTINGS.max_compared
    outside = refused(form, keep_ratio=0.5)
    assert "inside specs" in outside.message and "specs" in (outside.choices or ())
    assert not {"keep_ratio", "stream"} & set(outside.choices or ())
    assert refused(form, specs=[{"ratio": 1}]).choices == MERGE_FIELDS


@pytest.mark.parametrize(
    "specs",
    [
        "",
        "[",
        "x",
        "null",
        '[{"r": NaN}]',
        '[{"r": 1, "r": 2}]',
        "[" * 5000,
        "[{}" + " " * 70_000 + "]",
        "\ud800",
    ],
)
def test_specs_of_a_form_that_are_no_json(specs: str) -> None:
    error = refused("multipart", specs=specs)
    assert (error.code, error.field) in (("compare_count", "specs"), ("bad_request", "specs"))


def test_answers_side_by_side(form: str) -> None:
    compared = parse(form)
    merged = answered(answer="3 cubes")
    plain = answered(confidence=0.5, merge={**BODY["merge"], "method": "none"})
    refusal = ServiceError("keep_ratio_out_of_range", limit=0.5)
    body = sent(comparison("abc", ANSWER.model, compared, [plain, refusal, merged]))
    assert (body["request_id"], body["model"], body["question"]) == ("abc", BODY["model"], "how many ?")
    assert (body["baseline"], body["agree"]) == (0, [True, None, False])
    first, second, third = body["results"]
    assert [one["spec"] for one in body["results"]] == SPECS
    shown = {name: value for name, value in sent(plain).items() if name in Answered.model_fields}
    assert first == {"spec": SPECS[0], **shown}
    assert second == {"spec": SPECS[1], **refusal.body("abc")}
    assert third["answer"] == "3 cubes"
    VqaResponse.model_validate({**body, **third})  # nothing of an answer is lost


def test_without_a_baseline_nothing_agrees(form: str) -> None:
    refusal = ServiceError("internal")
    for results in ([ANSWER] * 3, [refusal, ANSWER, ANSWER]):
        body = comparison("abc", ANSWER.model, parse(form), results)
        assert (body.baseline, body.agree) == (None, [None] * 3)


def test_a_comparison_without_any_answer_is_refused(form: str) -> None:
    refusals = [ServiceError("bad_image"), ServiceError("internal"), ServiceError("internal")]
    with pytest.raises(ServiceError) as caught:
        comparison("abc", ANSWER.model, parse(form), refusals)
    assert caught.value is refusals[0]


def test_answers_are_those_of_separate_questions(client: TestClient, question: Question, form: str) -> None:
    given = {"question": "how many cubes ?", "max_new_tokens": 4}
    response = question.but(specs=json.dumps(SPECS) if form == "multipart" else SPECS).post(client, form, URL)
    body = response.json()
    assert response.status_code == 200, response.text
    CompareResponse.model_validate_json(response.content, strict=True)
    alone = [question.but(**given, **spec).post(client, form).json() for spec in SPECS]
    for result, one in zip(body["results"], alone, strict=True):
        assert [result[name] for name in ("answer", "merge", "depth", "usage", "finish_reason")] == [
            one[name] for name in ("answer", "merge", "depth", "usage", "finish_reason")
        ]
    assert body["baseline"] == 0
    assert body["agree"] == [one["answer"] == alone[0]["answer"] for one in alone]


def test_one_spec_that_this_model_cannot_do_fails_alone(client: TestClient, question: Question) -> None:
    specs = [{"method": "tome", "keep_ratio": 0.01}, {"method": "none"}]
    response = question.but(specs=specs).post(client, "json", URL)
    first, second = response.json()["results"]
    assert response.status_code == 200 and second["answer"] is not None
    assert (first["error"]["code"], first["error"]["field"]) == ("keep_ratio_out_of_range", "keep_ratio")
    assert response.json()["agree"] == [None, True]


def test_a_file_that_cannot_be_read_refuses_everything(
    client: TestClient, question: Question, form: str
) -> None:
    specs = json.dumps(SPECS) if form == "multipart" else SPECS
    response = question.but(images=(b"x",), specs=specs).post(client, form, URL)
    assert response.status_code == 422 and response.json()["error"]["code"] == "bad_image"


def test_more_settings_than_the_service_has_places(checkpoint: Path, question: Question) -> None:
    specs = [{"method": "tome", "keep_ratio": 0.5 + at / 100} for at in range(5)]
    with running(checkpoint, depth_model="none", max_queue=1, max_batch=1) as client:
        response = question.but(specs=specs).post(client, "json", "/vqa/compare")
        assert response.status_code == 200, response.text
        assert len(response.json()["results"]) == 5
        assert client.app.state.service.engine.admission.in_flight == 0  # type: ignore[attr-defined]
