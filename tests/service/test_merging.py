"""What a request asks of merging arrives at the plan, and the response says where it acted."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.pipeline.response_models import DepthUsed, MergeDone
from tests.service.conftest import Question
from tosa import METHODS, MergeSpec, make_plan
from tosa.methods.options import settings_of

NO_DEPTH = {**dict.fromkeys(DepthUsed.model_fields), "source": "none", "guessed": [], "notes": []}
IF_ASKED = [name for name, method in METHODS.items() if method.spatial_option]
GRID = [name for name, method in METHODS.items() if method.merges and method.keeps_grid]


def ask(client: TestClient, question: Question, form: str) -> dict[str, Any]:
    response = question.post(client, form)
    assert response.status_code == 200, response.text
    MergeDone.model_validate(response.json()["merge"])
    return response.json()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers(client: TestClient, question: Question, form: str, method: str) -> None:
    keep_ratio = 0.5 if METHODS[method].merges else None
    merge = ask(client, question.but(method=method, keep_ratio=keep_ratio or ...), form)["merge"]
    shape = client.app.state.service.models().vlm.shape  # type: ignore[attr-defined]
    plan = make_plan(MergeSpec(method, keep_ratio=keep_ratio), shape)
    assert (merge["method"], merge["tokens_out"]) == (method, plan.tokens_out)
    assert merge["keep_ratio"] == round(plan.keep_ratio, 6) == merge["tokens_out"] / merge["tokens_in"]
    assert merge.get("options") == (None if plan.options is None else vars(plan.options))


def test_layers_choose_where(client: TestClient, question: Question, form: str) -> None:
    merge = ask(client, question.but(method="tome", layers=[2, 0], r=4), form)["merge"]
    assert (merge["layers"], merge["tokens_out"]) == ([0, 2], 8)
    merge = ask(client, question.but(method="tome", layers=[1], keep_ratio=0.75), form)["merge"]
    assert (merge["layers"], merge["tokens_out"]) == ([1], 12)
    assert "layers" not in ask(client, question.but(method="tome", r=4), form)["merge"]


def test_layers_are_those_that_removed_something(client: TestClient, question: Question, form: str) -> None:
    request = question.but(method="tome", layers=[0, 1], r=[0, 3])
    assert ask(client, request, form)["merge"]["layers"] == [1]


@pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if method.merges and method.layers != "all"]
)
def test_a_default_that_spares_layers_is_said(
    client: TestClient, question: Question, form: str, method: str
) -> None:
    merge = ask(client, question.but(method=method, keep_ratio=0.75), form)["merge"]
    assert 1 <= len(merge["layers"]) < 3


@pytest.mark.parametrize("method", GRID)
def test_rows_and_columns(client: TestClient, question: Question, form: str, method: str) -> None:
    merge = ask(client, question.but(method=method, r_hw=[1, 2], layers=[1]), form)["merge"]
    assert (merge["r_hw"], merge["layers"], merge["tokens_out"]) == ([1, 2], [1], 6)
    merge = ask(client, question.but(method=method, keep_ratio=0.3), form)["merge"]
    assert merge["keep_ratio"] == merge["tokens_out"] / 16 and "r_hw" not in merge


@pytest.mark.parametrize("text", ["[1, 2]", "1,2"])
def test_a_form_may_write_lists_in_two_ways(client: TestClient, question: Question, text: str) -> None:
    merge = ask(client, question.but(method="tome", r=1, layers=text), "multipart")["merge"]
    assert merge["layers"] == [1, 2]
    assert ask(client, question.but(method="tome", r=1, layers="2"), "multipart")["merge"]["layers"] == [2]


def test_options_are_said_with_their_defaults(client: TestClient, question: Question, form: str) -> None:
    merge = ask(client, question.but(method="saint", keep_ratio=0.5, options={"tau": 0.5}), form)["merge"]
    assert merge["options"] == {"tau": 0.5, "gamma": 10.0}
    assert "options" not in ask(client, question.but(options={}), form)["merge"]


def test_place_alone_can_steer(client: TestClient, question: Question, form: str) -> None:
    request = question.but(method="tosa", depth="none", spatial_kernel="distance")
    without = ask(client, request.but(depths=()), form)
    assert without["depth"] == NO_DEPTH and without["timings_ms"]["depth"] is None
    assert without["merge"]["spatial_kernel"] == "distance"
    unused = ask(client, request, form)
    assert unused["depth"].pop("notes")[-1]["code"] == "not_used"
    assert {**unused["depth"], "notes": []} == NO_DEPTH and unused["answer"] == without["answer"]


def test_depth_that_is_not_wanted_does_not_choose_the_method(
    client: TestClient, question: Question, form: str
) -> None:
    answer = ask(client, question.but(depth="none"), form)
    assert answer["merge"]["method"] == "none" and answer["depth"]["source"] == "unused"
    assert ask(client, question.but(depth="client"), form)["merge"]["method"] == "tosa"


def test_depth_is_unused_where_the_scene_does_not_steer(
    client: TestClient, question: Question, form: str
) -> None:
    for depth in ("client", "none"):
        answer = ask(client, question.but(method="tome", depth=depth), form)
        assert answer["depth"]["source"] == "unused"
        assert not {"alpha", "spatial_kernel"} & set(answer["merge"])


@pytest.mark.parametrize("method", IF_ASKED)
def test_an_option_can_need_depth(
    client: TestClient, blind_client: TestClient, question: Question, form: str, method: str
) -> None:
    option = METHODS[method].spatial_option
    request = question.but(method=method, options={option: 0.5}, spatial_kernel="distance")
    answer = ask(client, request, form)
    assert answer["depth"]["source"] == "client" and answer["merge"]["spatial_kernel"] == "distance"
    assert ask(client, request.but(depths=(), depth="none"), form)["depth"] == NO_DEPTH
    refused = request.but(depths=()).post(blind_client, form).json()["error"]
    assert refused["code"] == "depth_required" and "option" in refused["message"]
    off = question.but(method=method, options={option: 0})
    assert ask(client, off, form)["depth"]["source"] == "unused"
    assert ask(client, off.but(depths=()), form)["depth"] is None


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.options])
def test_no_option_value_is_a_surprise(client: TestClient, question: Question, method: str) -> None:
    """Whatever is sent is refused as a bad option, or works."""
    request, seen = question.but(method=method, keep_ratio=0.5), set()
    for setting in settings_of(METHODS[method].options):
        for value in (-(2**53), -1, 0, 1, 3, 100, 2**53, -1e9, 0.5, 1e-9, 1e9, "x", None):
            response = request.but(options={setting.name: value}).post(client, "json")
            seen.add(response.status_code)
            if response.status_code != 200:
                assert response.json()["error"]["code"] == "bad_option", (setting.name, value)
    assert seen == {200, 422}
