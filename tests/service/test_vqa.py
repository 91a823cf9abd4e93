"""A good question, in both forms: the documented fields, and the truth about what was done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from depth import NOTES
from service.pipeline.response_models import VqaResponse
from tests.service.conftest import Question
from tosa import METHODS

SHARED = {
    "answer",
    "request_id",
    "model",
    "merge",
    "depth",
    "usage",
    "finish_reason",
    "cached",
    "batch_size",
    "timings_ms",
    "views",
}
MERGE = {"method", "keep_ratio", "tokens_in", "tokens_out", "vit_flops_ratio", "saves", "prop_attn"}
STAGES = [
    *("receive", "queue", "decode", "preprocess", "estimate", "depth"),
    *("vision", "prefill", "generate", "total"),
]


def test_what_is_sent_is_the_model_and_nothing_else(
    client: TestClient, question: Question, form: str
) -> None:
    for request in (question, question.but(method="none"), question.but(depths=(), depth="estimate")):
        sent = request.post(client, form).content
        assert VqaResponse.model_validate_json(sent).model_dump_json(exclude_unset=True).encode() == sent


def test_answer_has_the_documented_fields(client: TestClient, question: Question, form: str) -> None:
    response = question.post(client, form)
    answer = response.json()
    assert response.status_code == 200
    VqaResponse.model_validate(answer)
    assert set(answer) == SHARED
    assert answer["merge"] == {
        "method": "tosa",
        "keep_ratio": 0.25,
        "tokens_in": 16,
        "tokens_out": 4,
        "vit_flops_ratio": answer["merge"]["vit_flops_ratio"],
        "saves": ["vit", "lm"],
        "prop_attn": METHODS["tosa"].prop_attn,
        "alpha": "increase",
        "spatial_kernel": "sinusoidal",
    }
    assert 0 < answer["merge"]["vit_flops_ratio"] < 1
    assert answer["views"] == [{"kind": "single", "count": 1, "grid": [4, 4], "tiles": [0, 0], "tokens": 5}]
    assert answer["depth"] == {
        "source": "client",
        "kind": "metric",
        "unit": "m",
        "range": [0.5, 3.571],
        "scale": 1000,
        "preset": None,
        "valid_ratio": 1.0,
        "guessed": [
            {"field": "kind", "sentence": answer["depth"]["guessed"][0]["sentence"]},
            {"field": "scale", "sentence": "Integers were taken as millimetres."},
        ],
        "notes": [{"code": "maybe_inverse", "sentence": NOTES["maybe_inverse"]}],  # a straight ramp
        "estimator": None,
        "cached": None,
    }
    assert answer["model"]["id"] == "tiny" and len(answer["model"]["revision"]) == 16
    assert answer["usage"]["completion_tokens"] <= 4
    assert answer["request_id"] == response.headers["x-request-id"]


def test_stages_add_up_and_are_in_the_header(client: TestClient, question: Question, form: str) -> None:
    response = question.post(client, form)
    timings = response.json()["timings_ms"]
    assert list(timings) == STAGES
    assert timings.pop("estimate") is None
    ran = [stage for stage in STAGES if stage != "estimate"]
    assert sum(timings[stage] for stage in ran[:-1]) == pytest.approx(timings["total"], abs=0.01)
    assert response.headers["server-timing"] == ", ".join(f"{stage};dur={timings[stage]}" for stage in ran)


@pytest.mark.parametrize("method", ["none", "tome"])
def test_a_stage_that_did_not_run_is_null(
    client: TestClient, question: Question, form: str, method: str
) -> None:
    response = question.but(method=method).post(client, form)
    answer = response.json()
    assert answer["depth"]["source"] == "unused" and answer["timings_ms"]["estimate"] is None
    assert "estimate;" not in response.headers["server-timing"]
    assert set(answer["merge"]) == MERGE


def test_default_method_follows_the_depth(client: TestClient, question: Question, form: str) -> None:
    merge = question.but(depths=()).post(client, form).json()["merge"]
    assert (merge["method"], merge["keep_ratio"], merge["tokens_out"]) == ("none", 1.0, 16)
    assert merge["vit_flops_ratio"] == 1.0
    merge = question.but(depths=(), method="tome").post(client, form).json()["merge"]
    assert (merge["method"], merge["keep_ratio"], merge["tokens_out"]) == ("tome", 0.25, 4)


@pytest.mark.parametrize("keep_ratio", [0.125, 0.3, 0.5, 0.99, 1, 1.0])
def test_keep_ratio_is_exact(client: TestClient, question: Question, form: str, keep_ratio: float) -> None:
    merge = question.but(keep_ratio=keep_ratio).post(client, form).json()["merge"]
    assert merge["tokens_out"] == round(16 * keep_ratio)
    assert merge["keep_ratio"] == merge["tokens_out"] / 16  # what it really is


@pytest.mark.parametrize(("r", "out"), [(2, 10), ([4, 0, 3], 9), (0, 16)])
def test_r_removes_what_it_says(
    client: TestClient, question: Question, form: str, r: int | list[int], out: int
) -> None:
    merge = question.but(r=r).post(client, form).json()["merge"]
    assert (merge["r"], merge["tokens_out"], merge["keep_ratio"]) == (r, out, out / 16)


@pytest.mark.parametrize("r", ["[4, 0, 3]", "4,0,3", " 4, 0, 3 "])
def test_a_form_may_write_lists_in_two_ways(client: TestClient, question: Question, r: str) -> None:
    assert question.but(r=r).post(client, "multipart").json()["merge"]["r"] == [4, 0, 3]


def test_other_options_are_taken(client: TestClient, question: Question, form: str) -> None:
    request = question.but(
        schedule="decreasing",
        alpha=[0, 0.5, 1],
        prop_attn=False,
        order="merge",
        depth_scale=5000,
        temperature=0.7,
        top_p=0.9,
        seed=7,
    )
    answer = request.post(client, form).json()
    assert answer["merge"]["prop_attn"] is False and answer["merge"]["alpha"] == [0, 0.5, 1]
    assert request.post(client, form).json()["answer"] == answer["answer"]


def test_null_means_not_sent(client: TestClient, question: Question) -> None:
    answer = question.but(method=None, keep_ratio=None, seed=None).post(client, "json").json()
    assert (answer["merge"]["method"], answer["merge"]["keep_ratio"]) == ("tosa", 0.25)


def test_several_images_are_summed(client: TestClient, question: Question, form: str) -> None:
    request = question.but(images=question.images * 2, depths=question.depths * 2)
    merge = request.post(client, form).json()["merge"]
    assert (merge["tokens_in"], merge["tokens_out"]) == (32, 8)


def test_both_forms_give_the_same_answer(client: TestClient, question: Question) -> None:
    forms = [question.post(client, form).json() for form in ("multipart", "json")]
    assert forms[0]["answer"] == forms[1]["answer"] and forms[0]["merge"] == forms[1]["merge"]


def test_questions_at_once_are_answered_as_one_by_one(client: TestClient, question: Question) -> None:
    specs = [{"method": "none"}, {"method": "tome", "keep_ratio": 0.5}, {"method": "tosa", "r": 3}] * 6
    one_by_one = [question.but(**spec).post(client, "json").json() for spec in specs]
    with ThreadPoolExecutor(3) as pool:  # as many as may be inside
        at_once = list(pool.map(lambda spec: question.but(**spec).post(client, "json").json(), specs))
    assert [(a["answer"], a["merge"]) for a in at_once] == [(a["answer"], a["merge"]) for a in one_by_one]


def test_request_id_is_echoed_if_plain_and_made_otherwise(client: TestClient, question: Question) -> None:
    for given, is_kept in [("robot-7.cam_1", True), ("a" * 65, False), ("<b>", False), ("", False)]:
        made = client.get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"]
        assert (made == given) is is_kept and 1 <= len(made) <= 64
