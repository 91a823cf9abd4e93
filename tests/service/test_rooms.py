"""POST /rooms: the rooms that `tosa-vqa scene` writes, bounded as other work is."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.rooms import MAX_SEED, RoomFields, RoomResponse
from service.roomqa.condition import CAMERAS, CONDITIONS, STRENGTHS
from tests.service.conftest import Question, running
from tests.service.test_refusals import check

FRAMES = Path(__file__).parents[2] / "examples" / "frames"


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_room_is_the_one_that_the_command_wrote(client: TestClient) -> None:
    folder = FRAMES / "room-2"
    scene = json.loads((folder / "scene.json").read_text())
    response = client.post("/rooms", json={"seed": scene["seed"]})
    RoomResponse.model_validate_json(response.content, strict=True)
    body = response.json()
    for name, file in (("image", "rgb.png"), ("depth", "depth.png")):
        drawn = pixels(base64.b64decode(body[name]))
        assert np.array_equal(drawn, pixels((folder / file).read_bytes())), name
    assert body["camera"] == scene["camera"]
    assert body["questions"][: len(scene["questions"])] == scene["questions"]


def test_a_room_can_be_asked_about_as_it_came(client: TestClient) -> None:
    body = client.post("/rooms", json={"seed": 7, "condition": "dark", "depth_camera": "active"}).json()
    image, depth = (base64.b64decode(body[name]) for name in ("image", "depth"))
    asked = Question((image,), (depth,)).but(question=body["questions"][0]["question"])
    assert asked.post(client, "multipart").status_code == 200


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": 7, "condition": "rain"}, "condition"),
        ({"seed": 7, "strength": 4}, "strength"),
        ({"seed": 7, "depth_camera": "lidar"}, "depth_camera"),
    ],
)
def test_fields_out_of_range_are_named(client: TestClient, sent: dict[str, Any], field: str) -> None:
    check(client.post("/rooms", json=sent), 400, "bad_request", field)


def test_other_bodies_are_refused(client: TestClient) -> None:
    check(client.post("/rooms", json={"seed": 7, "size": 4096}), 422, "unknown_field", "size")
    check(client.post("/rooms", files={"seed": (None, "7")}), 415, "unsupported_media_type")


def test_a_room_costs_and_needs_a_key(checkpoint: Path) -> None:
    settings = {"depth_model": "none", "api_keys": "robot=secret", "key_units_per_minute": 0.001}
    with running(checkpoint, **settings) as client:
        assert client.post("/rooms", json={"seed": 7}).status_code == 401
        client.headers["x-api-key"] = "secret"
        assert client.post("/rooms", json={"seed": 7}).status_code == 200
        check(client.post("/rooms", json={"seed": 7}), 429, "budget_exceeded")


def test_the_words_of_the_fields_are_those_of_the_generator() -> None:
    schema = RoomFields.model_json_schema()["properties"]
    assert tuple(schema["condition"]["anyOf"][0]["enum"]) == CONDITIONS
    assert tuple(schema["depth_camera"]["enum"]) == CAMERAS
    assert (schema["strength"]["minimum"], schema["strength"]["maximum"]) == (STRENGTHS[0], STRENGTHS[-1])
