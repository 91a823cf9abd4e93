"""POST /depth/inspect: the same reading as a question's, without a question."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from depth import NOTES
from service.api.responses import Inspected
from service.app import create_app
from service.request.schemas import DepthFields
from service.settings import Settings
from tests.depth.cases import case
from tests.depth.files import npy, png8, png16
from tests.depth.writers import npz
from tests.service.conftest import PLACES, Question
from tests.service.files import DEPTH, IMAGE, encode, png_promising
from tests.service.test_life import busy_model
from tests.service.test_refusals import check

URL = "/depth/inspect"
FRAME = Path(__file__).parents[2] / "examples" / "frames" / "room-1"
FILE = Question(images=(), fields={})


def inspect(client: TestClient, request: Question, form: str) -> dict[str, Any]:
    response = request.post(client, form, URL)
    assert response.status_code == 200, response.text
    Inspected.model_validate(response.json())
    assert response.json()["request_id"] == response.headers["x-request-id"]
    return {name: value for name, value in response.json().items() if name != "request_id"}


def test_what_was_understood_is_said(client: TestClient, form: str) -> None:
    assert inspect(client, FILE.but(depth_scale=1000, depth_invalid=[500]), form) == {
        "format": "png",
        "dtype": "uint16",
        "height": 48,
        "width": 64,
        "kind": "metric",
        "unit": "m",
        "range": [0.501, 3.571],
        "scale": 1000,
        "preset": None,
        "valid_ratio": round(1 - 1 / (48 * 64), 4),
        "guessed": [],
        "median": 2.036,
        "notes": [{"code": "maybe_inverse", "sentence": NOTES["maybe_inverse"]}],  # a straight ramp
        "same_aspect": None,
        "picture": None,
    }


def test_it_is_what_a_question_would_read(client: TestClient, question: Question, form: str) -> None:
    for depth, given in ((DEPTH, {}), (DEPTH, {"depth_preset": "tum"}), (png8(np.eye(48, 64) * 9), {})):
        seen = inspect(client, FILE.but(depths=(depth,), **given), form)
        used = question.but(depths=(depth,), **given).post(client, form).json()["depth"]
        assert {name: seen[name] for name in seen.keys() & used.keys()} == {
            name: used[name] for name in seen.keys() & used.keys()
        }


def test_doubts_are_noted(client: TestClient, form: str) -> None:
    few = np.zeros((48, 64), np.float32)
    few[0, :9] = np.linspace(0.1, 0.9, 9)
    notes = inspect(client, FILE.but(depths=(npy(few),)), form)["notes"]
    assert [note["code"] for note in notes] == ["few_valid", "maybe_normalised"]
    assert all(note["sentence"] == NOTES[note["code"]] for note in notes)


def test_depth_that_is_turned_against_its_image_is_doubted(client: TestClient, form: str) -> None:
    """An image that a phone turned upright by EXIF, with depth as the sensor saw it."""
    image, depth = (FRAME / "rgb.png").read_bytes(), (FRAME / "depth.png").read_bytes()
    turned = encode(np.asarray(Image.open(io.BytesIO(image)))[::-1, ::-1], "PNG")
    for picture, codes in ((image, []), (turned, ["maybe_unaligned"])):
        seen = inspect(client, FILE.but(images=(picture,), depths=(depth,)), form)
        assert ([note["code"] for note in seen["notes"]], seen["same_aspect"]) == (codes, True)


def test_what_a_file_does_not_say_is_said_in_the_request(client: TestClient, form: str) -> None:
    metres = np.linspace(1, 4, 48 * 64, dtype=np.float32).reshape(48, 64)
    archive = npz(depth=metres, rgb=np.zeros((2, 2, 3)))
    assert inspect(client, FILE.but(depths=(archive,), depth_key="depth"), form)["format"] == "npz"
    raw = FILE.but(depths=(metres.tobytes(),))
    seen = inspect(client, raw.but(depth_shape="64x48"), form)
    assert [guess["field"] for guess in seen["guessed"]] == ["dtype", "kind", "scale"]
    refused = FILE.but(depths=(archive,)).post(client, form, URL)
    check(refused, 422, "depth_npz", "depth")
    assert refused.json()["error"]["choices"] == ["depth", "rgb"]
    check(raw.but(depth_shape="64 by 48").post(client, form, URL), 422, "bad_depth_shape", "depth_shape")
    check(FILE.but(depth_key="z").post(client, form, URL), 422, "bad_depth_key", "depth_key")


def test_packed_depth_is_told_its_preset(client: TestClient, form: str) -> None:
    packed = FILE.but(depths=(case("c13_carla.png"),))
    refused = packed.post(client, form, URL)
    check(refused, 422, "depth_packed", "depth")
    assert refused.json()["error"]["choices"] == ["carla"]
    assert inspect(client, packed.but(depth_preset="carla"), form)["unit"] == "m"


def test_a_picture_is_drawn_if_asked_for(client: TestClient, form: str) -> None:
    encoded = inspect(client, FILE.but(picture=True), form)["picture"]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 48


def test_the_image_must_have_the_same_proportions(client: TestClient, form: str) -> None:
    assert inspect(client, FILE.but(images=(IMAGE,)), form)["same_aspect"] is True
    turned = png16(np.arange(500, 500 + 48 * 64).reshape(64, 48))
    refused = FILE.but(images=(IMAGE,), depths=(turned,)).post(client, form, URL)
    check(refused, 422, "depth_shape_mismatch", "depth")


CASES: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"depths": (), "depth_scale": 1}, 422, "depth_count", "depth"),
    ({"depths": (DEPTH, DEPTH)}, 422, "depth_count", "depth"),
    ({"images": (IMAGE, IMAGE)}, 422, "image_count", "image"),
    ({"images": (b"x",)}, 422, "bad_image", "image"),
    ({"depths": (IMAGE,)}, 422, "depth_colour_mapped", "depth"),
    ({"depths": (DEPTH[:-50],)}, 422, "depth_truncated", "depth"),
    ({"depths": (png_promising(9999, 9999),)}, 413, "depth_too_large", "depth"),
    ({"depth_preset": "kinect"}, 422, "unknown_depth_preset", "depth_preset"),
    ({"depth_preset": "tum", "depth_scale": 1000}, 422, "depth_unit_twice", "depth_preset"),
    ({"picture": "perhaps"}, 400, "bad_request", "picture"),
    ({"question": "how many ?"}, 422, "unknown_field", "question"),
    ({"depths": (DEPTH + bytes(2**20),)}, 413, "body_too_large", None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_refused(client: TestClient, form: str, case: tuple[dict[str, Any], int, str, str | None]) -> None:
    changes, status, code, field = case
    check(FILE.but(**changes).post(client, form, URL), status, code, field)


def test_the_same_gates_as_a_question(client: TestClient) -> None:
    check(client.post(f"{URL}?picture=1", content=b""), 422, "unknown_field", "picture")
    check(
        client.post(URL, content=b"x", headers={"content-type": "image/png"}), 415, "unsupported_media_type"
    )
    check(client.get(URL), 405, "method_not_allowed")
    engine = client.app.state.service.engine  # type: ignore[attr-defined]
    places = [engine.admission.acquire() for _ in range(PLACES)]
    for place in places:
        place.__enter__()
    try:
        check(FILE.post(client, "multipart", URL), 503, "overloaded")
    finally:
        for place in places:
            place.__exit__(None, None, None)


def test_no_model_is_needed(client: TestClient, tmp_path: Path) -> None:
    with busy_model(client):
        assert FILE.post(client, "json", URL).status_code == 200
    with TestClient(create_app(Settings(model=str(tmp_path)))) as broken:
        assert FILE.post(broken, "json", URL).status_code == 200


def test_it_is_documented(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"][URL]["post"]["requestBody"]["content"]
    in_form = body["multipart/form-data"]["schema"]
    assert in_form["required"] == ["depth"] and body["application/json"]["schema"]["required"] == ["depths"]
    assert {"depth", "image", "depth_preset", "depth_invalid", "picture", "values_px"} == set(
        in_form["properties"]
    ) - {
        "depth_scale",
        "depth_kind",
        "depth_key",
        "depth_shape",
    }
    body = schema["paths"]["/vqa"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for name in ("depth", *DepthFields.model_fields):
        assert body["properties"][name]["examples"]
