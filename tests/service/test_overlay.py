"""POST /vqa/overlay: the groups of every layer, their sizes and depth, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.responses import OverlayResponse
from tests.service.conftest import Question, running
from tests.service.test_refusals import check

URL = "/vqa/overlay"


@pytest.fixture
def shown() -> Question:
    return Question(fields={"method": "tosa", "keep_ratio": 0.25})


def overlay(client: TestClient, question: Question, form: str = "multipart") -> dict[str, Any]:
    response = question.post(client, form, URL)
    assert response.status_code == 200, response.text
    assert "vision;dur=" in response.headers["server-timing"]
    OverlayResponse.model_validate_json(response.content, strict=True)
    return response.json()


def test_groups_cover_every_patch_and_shrink_to_the_tokens(
    client: TestClient, shown: Question, form: str
) -> None:
    body = overlay(client, shown, form)
    (view,) = body["views"]
    patches = view["grid"][0] * view["grid"][1]
    assert body["tokens"][0] == body["merge"]["tokens_in"] == patches
    assert body["tokens"][-1] == body["merge"]["tokens_out"] == len(view["layers"][-1]["sizes"])
    assert body["depth"]["source"] == "client" and len(view["depth"]) == patches
    for layer in view["layers"]:
        assert len(layer["groups"]) == sum(layer["sizes"]) == patches
        assert len(layer["sizes"]) == body["tokens"][layer["layer"] + 1]
        counted = Counter(layer["groups"])
        assert [counted[group] for group in range(len(counted))] == layer["sizes"]
        firsts = [layer["groups"].index(group) for group in range(len(counted))]
        assert firsts == sorted(firsts), "numbered by their first patch"


def test_a_group_never_falls_apart(client: TestClient, shown: Question) -> None:
    layers = overlay(client, shown.but(method="tome"))["views"][0]["layers"]
    assert len(layers) > 1
    for before, after in pairwise(layers):
        joined = dict(zip(before["groups"], after["groups"], strict=True))
        assert [joined[group] for group in before["groups"]] == after["groups"]


def test_the_groups_are_those_of_the_question_alone(client: TestClient, shown: Question) -> None:
    """They depend on nothing that ran before, and the cache of frames does not hide them."""
    first = overlay(client, shown)["views"]
    assert shown.but(question="how many cubes ?").post(client, "multipart").status_code == 200
    assert overlay(client, shown)["views"] == first


def test_without_merging_there_is_no_layer_to_show(client: TestClient, shown: Question) -> None:
    body = overlay(client, shown.but(method="none", keep_ratio=...))
    assert body["views"][0]["layers"] == [] and len(set(body["tokens"])) == 1
    assert body["views"][0]["depth"], "depth that was sent is shown, although nothing used it"


def test_estimated_depth_is_shown(client: TestClient, shown: Question) -> None:
    body = overlay(client, shown.but(depths=()))
    assert body["depth"]["source"] == "estimate" and any(body["views"][0]["depth"])
    again = overlay(client, shown.but(depths=()))
    assert again["depth"]["cached"] and again["views"] == body["views"]


def test_without_any_depth_it_is_null(blind_client: TestClient, shown: Question) -> None:
    body = overlay(blind_client, shown.but(method="tome", depths=()))
    assert body["depth"] is None and body["views"][0]["depth"] is None


def test_depth_as_numbers_is_at_most_as_large_as_asked_for(client: TestClient, shown: Question) -> None:
    assert "values" not in overlay(client, shown)
    values = overlay(client, shown.but(values_px=16))["values"]
    assert max(values["height"], values["width"]) <= 16
    assert len(values["values"]) == values["height"] * values["width"]
    alone = Question(images=(), fields={"values_px": 16}).post(client, "multipart", "/depth/inspect").json()
    assert alone["values"] == values, "as the inspection reads it"


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"question": "how many ?"}, "unknown_field", "question"),
        ({"stream": True}, "unknown_field", "stream"),
        ({"method": "magic"}, "unknown_method", "method"),
        ({"keep_ratio": 7}, "keep_ratio_out_of_range", "keep_ratio"),
        ({"images": (), "depths": ()}, "image_count", "images"),
        ({"depths": (b"no depth",)}, "bad_depth", "depth"),
    ],
)
def test_what_is_refused(
    client: TestClient, shown: Question, change: dict[str, Any], code: str, field: str
) -> None:
    response = shown.but(**change).post(client, "json", URL)
    check(response, 422, code, field)


def test_one_picture_at_a_time(client: TestClient, shown: Question) -> None:
    two = shown.but(images=shown.images * 2, depths=shown.depths * 2)
    error = two.post(client, "json", URL).json()["error"]
    assert (error["code"], error["message"]) == ("image_count", "Send exactly one image.")


def test_it_costs_and_needs_a_key(checkpoint: Path, shown: Question) -> None:
    settings = {"depth_model": "none", "api_keys": "robot=secret", "key_units_per_minute": 0.001}
    with running(checkpoint, **settings) as client:
        assert shown.post(client, "json", URL).status_code == 401
        client.headers["x-api-key"] = "secret"
        overlay(client, shown, "json")
        refused = shown.post(client, "json", URL)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
        assert json.loads(refused.content)["error"]["request_id"]
