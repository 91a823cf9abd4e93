"""Every refusal has its own code in both request forms, leaks nothing, and leaves the server well."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from depth import PRESETS
from service.errors.table import CODES
from tests.depth.cases import case
from tests.depth.files import npy, npy_with_header, png8, png16
from tests.depth.writers import npz
from tests.service.conftest import LIMITS, Question
from tests.service.files import DEPTH, IMAGE, PIXELS, animation, encode, png_promising
from tosa import METHODS

LEAKS = re.compile(r"Traceback|0x[0-9a-f]{6,}|site-packages|/tmp/|/work/|\.py\b|Error\(|object at")
ROOM = np.ones((48, 64), dtype="f4")
WALL = np.linspace(1, 2, 48 * 64, dtype="f4").reshape(48, 64)
GREY = PIXELS[..., 0]
GREY_ALPHA = np.dstack([GREY, GREY, GREY, GREY // 2])

Case = tuple[str, dict[str, Any], int, str, str | None]
CASES: list[Case] = [
    ("no image", {"images": (), "depths": ()}, 422, "image_count", "image"),
    ("four images", {"images": (IMAGE,) * 4, "depths": ()}, 422, "image_count", "image"),
    ("empty image", {"images": (b"",)}, 422, "bad_image", "image"),
    ("text as image", {"images": (b"%!PS-Adobe-3.0 EPSF-3.0",)}, 422, "bad_image", "image"),
    ("gif", {"images": (encode(PIXELS, "GIF"),)}, 422, "bad_image", "image"),
    ("tiff", {"images": (encode(PIXELS, "TIFF"),)}, 422, "bad_image", "image"),
    ("cut png", {"images": (IMAGE[:-100],)}, 422, "bad_image", "image"),
    ("cut jpeg", {"images": (encode(PIXELS, "JPEG")[:-500],)}, 422, "bad_image", "image"),
    ("cut webp", {"images": (encode(PIXELS, "WEBP")[:-100],)}, 422, "bad_image", "image"),
    ("animated png", {"images": (animation("PNG"),)}, 422, "bad_image", "image"),
    ("animated webp", {"images": (animation("WEBP"),)}, 422, "bad_image", "image"),
    ("depth as image", {"images": (DEPTH,)}, 422, "bad_image", "image"),
    ("too many pixels", {"images": (png_promising(30_000, 30_000),)}, 413, "image_too_large", "image"),
    ("colour depth", {"depths": (IMAGE,)}, 422, "depth_colour_mapped", "depth"),
    ("depth with alpha", {"depths": (png8(GREY_ALPHA),)}, 422, "depth_channels", "depth"),
    ("cut depth", {"depths": (DEPTH[:-100],)}, 422, "depth_truncated", "depth"),
    ("exr depth", {"depths": (b"\x76\x2f\x31\x01" + bytes(99),)}, 422, "depth_exr", "depth"),
    ("npz depth", {"depths": (npz(a=np.eye(4), b=np.eye(4)),)}, 422, "depth_npz", "depth"),
    ("packed depth", {"depths": (case("c13_carla.png"),)}, 422, "depth_packed", "depth"),
    ("clipped depth", {"depths": (case("c06_saturated8.png"),)}, 422, "depth_saturated", "depth"),
    ("animated depth", {"depths": (animation("PNG"),)}, 422, "depth_multi_page", "depth"),
    ("complex depth", {"depths": (npy(ROOM.astype("c8")),)}, 422, "depth_dtype", "depth"),
    ("flat depth", {"depths": (npy(ROOM),)}, 422, "depth_constant", "depth"),
    ("far depth", {"depths": (npy(WALL * 1000),)}, 422, "depth_implausible", "depth"),
    ("empty depth", {"depths": (b"",)}, 422, "bad_depth", "depth"),
    ("no valid depth", {"depths": (png16(ROOM * 0),)}, 422, "depth_all_invalid", "depth"),
    ("all NaN", {"depths": (npy(ROOM * np.nan),)}, 422, "depth_all_invalid", "depth"),
    ("pickle", {"depths": (npy_with_header("{'descr': '|O', 'shape': (1,)}"),)}, 422, "bad_depth", "depth"),
    ("bad depth nobody uses", {"depths": (b"x",), "method": "none"}, 422, "bad_depth", "depth"),
    ("huge depth", {"depths": (npy(np.ones((1001, 1000), "f2"))[:200],)}, 413, "depth_too_large", "depth"),
    ("turned depth", {"depths": (npy(WALL.T),)}, 422, "depth_shape_mismatch", "depth"),
    ("two depths", {"depths": (DEPTH, DEPTH)}, 422, "depth_count", "depth"),
    ("scale 0", {"depth_scale": 0}, 422, "bad_depth_scale", "depth_scale"),
    ("scale word", {"depth_scale": "mm"}, 422, "bad_depth_scale", "depth_scale"),
    ("scale beyond", {"depth_scale": 1e7}, 422, "bad_depth_scale", "depth_scale"),
    ("preset", {"depth_preset": "kinect"}, 422, "unknown_depth_preset", "depth_preset"),
    ("long preset", {"depth_preset": "x" * 65}, 422, "unknown_depth_preset", "depth_preset"),
    ("realsense 5", {"depth_preset": "realsense:5"}, 422, "unknown_depth_preset", "depth_preset"),
    ("preset, scale", {"depth_preset": "tum", "depth_scale": 5}, 422, "depth_unit_twice", "depth_preset"),
    (
        "preset, kind",
        {"depth_preset": "tum", "depth_kind": "metric"},
        422,
        "depth_unit_twice",
        "depth_preset",
    ),
    (
        "preset without depth",
        {"depth_preset": "kinect", "depths": ()},
        422,
        "unknown_depth_preset",
        "depth_preset",
    ),
    ("kind", {"depth_kind": "feet"}, 422, "bad_depth_kind", "depth_kind"),
    ("long kind", {"depth_kind": "x" * 33}, 422, "bad_depth_kind", "depth_kind"),
    ("relative scale", {"depth_kind": "relative", "depth_scale": 5}, 422, "bad_depth_scale", "depth_scale"),
    ("invalid word", {"depth_invalid": "holes"}, 422, "bad_depth_invalid", "depth_invalid"),
    ("invalid list", {"depth_invalid": [0, "x"]}, 422, "bad_depth_invalid", "depth_invalid"),
    ("many invalid", {"depth_invalid": list(range(17))}, 422, "bad_depth_invalid", "depth_invalid"),
    ("8-bit metric", {"depths": (png8(GREY),), "depth_kind": "metric"}, 422, "depth_dtype", "depth"),
    ("8-bit scannet", {"depths": (png8(GREY),), "depth_preset": "scannet"}, 422, "depth_dtype", "depth"),
    ("wrong scale", {"depth_scale": 0.1}, 422, "depth_implausible", "depth"),
    (
        "all named holes",
        {"depths": (png16(ROOM * 7),), "depth_invalid": [7]},
        422,
        "depth_all_invalid",
        "depth",
    ),
    ("depth word", {"depths": (), "depth": "guess"}, 422, "bad_depth", "depth"),
    ("depth promised", {"depths": (), "depth": "client"}, 422, "depth_count", "depth"),
    ("bad depth not wanted", {"depths": (b"x",), "depth": "none"}, 422, "bad_depth", "depth"),
    ("unknown method", {"method": "zip"}, 422, "unknown_method", "method"),
    ("long method", {"method": "tome" * 100}, 422, "unknown_method", "method"),
    ("ratio 0", {"keep_ratio": 0}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("ratio -1", {"keep_ratio": -1}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("ratio 1.01", {"keep_ratio": 1.01}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("ratio word", {"keep_ratio": "half"}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("ratio too small here", {"keep_ratio": 0.05}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("two dials", {"keep_ratio": 0.5, "r": 2}, 422, "bad_merge_spec", "keep_ratio"),
    ("none with ratio", {"method": "none", "keep_ratio": 0.5}, 422, "bad_merge_spec", "keep_ratio"),
    ("none with r", {"method": "none", "r": 2}, 422, "bad_merge_spec", "r"),
    ("negative r", {"r": -1}, 422, "bad_merge_spec", "r"),
    ("huge r", {"r": 10**30}, 422, "bad_merge_spec", "r"),
    ("r for too many layers", {"r": [1] * 4}, 422, "bad_merge_spec", "r"),
    ("r word", {"r": "many"}, 422, "bad_merge_spec", "r"),
    ("r_hw with r's methods", {"method": "tome", "r_hw": [1, 1]}, 422, "bad_merge_spec", "r_hw"),
    ("r with r_hw's methods", {"method": "pool", "r": 1}, 422, "bad_merge_spec", "r"),
    ("three r_hw", {"method": "pool", "r_hw": [1, 1, 1]}, 422, "bad_merge_spec", "r_hw"),
    ("one r_hw", {"method": "pool", "r_hw": 2}, 422, "bad_merge_spec", "r_hw"),
    ("negative r_hw", {"method": "pool", "r_hw": [-1, 0]}, 422, "bad_merge_spec", "r_hw"),
    ("large r_hw", {"method": "pool", "r_hw": [4, 0]}, 422, "bad_merge_spec", "r_hw"),
    ("none with r_hw", {"method": "none", "r_hw": [1, 1]}, 422, "bad_merge_spec", "r_hw"),
    ("none with layers", {"method": "none", "layers": [1]}, 422, "bad_merge_spec", "layers"),
    ("layer there is not", {"layers": [0, 3]}, 422, "bad_merge_spec", "layers"),
    ("layer twice", {"layers": [1, 1]}, 422, "bad_merge_spec", "layers"),
    ("negative layer", {"layers": [-1]}, 422, "bad_merge_spec", "layers"),
    ("half a layer", {"layers": [0.5]}, 422, "bad_merge_spec", "layers"),
    ("layers word", {"layers": "first"}, 422, "bad_merge_spec", "layers"),
    ("too few layers", {"layers": [1], "keep_ratio": 0.2}, 422, "keep_ratio_out_of_range", "keep_ratio"),
    ("kernel", {"spatial_kernel": "cosine"}, 422, "bad_merge_spec", "spatial_kernel"),
    ("option of none", {"method": "none", "options": {"tau": 1}}, 422, "unknown_option", "options"),
    ("unknown option", {"method": "saint", "options": {"tao": 1}}, 422, "unknown_option", "options"),
    ("option out of range", {"method": "saint", "options": {"tau": 2}}, 422, "bad_option", "options"),
    ("option of text", {"method": "saint", "options": {"tau": "high"}}, 422, "bad_option", "options"),
    ("option of null", {"method": "saint", "options": {"tau": None}}, 422, "bad_option", "options"),
    ("huge option", {"method": "saint", "options": {"tau": 10**30}}, 422, "bad_option", "options"),
    ("true option", {"method": "saint", "options": {"tau": True}}, 422, "bad_option", "options"),
    ("list option", {"method": "saint", "options": {"tau": [1]}}, 422, "bad_option", "options"),
    ("long option", {"method": "saint", "options": {"tau": "x" * 65}}, 422, "bad_option", "options"),
    ("long option name", {"method": "saint", "options": {"x" * 33: 1}}, 422, "bad_option", "options"),
    ("options word", {"method": "saint", "options": "tau"}, 422, "bad_option", "options"),
    ("options list", {"method": "saint", "options": [1, 2]}, 422, "bad_option", "options"),
    ("schedule word", {"schedule": "zigzag"}, 422, "bad_merge_spec", "schedule"),
    ("schedule number", {"schedule": 1.5}, 422, "bad_merge_spec", "schedule"),
    ("alpha word", {"alpha": "zigzag"}, 422, "bad_merge_spec", "alpha"),
    ("alpha number", {"alpha": 1.5}, 422, "bad_merge_spec", "alpha"),
    ("alpha list", {"alpha": [0.5, 0.5]}, 422, "bad_merge_spec", "alpha"),
    ("order", {"order": "zigzag"}, 422, "bad_merge_spec", "order"),
    ("prop_attn", {"prop_attn": "perhaps"}, 422, "bad_merge_spec", "prop_attn"),
    ("no answer", {"max_new_tokens": 0}, 422, "bad_generation", "max_new_tokens"),
    ("long answer", {"max_new_tokens": 2**31}, 422, "bad_generation", "max_new_tokens"),
    ("cold", {"temperature": -0.1}, 422, "bad_generation", "temperature"),
    ("top_p", {"top_p": 0}, 422, "bad_generation", "top_p"),
    ("seed", {"seed": 2**63}, 422, "bad_generation", "seed"),
    ("no question", {"question": ...}, 422, "empty_question", "question"),
    ("empty question", {"question": ""}, 422, "empty_question", "question"),
    ("blank question", {"question": " \n\t "}, 422, "empty_question", "question"),
    ("long question", {"question": "x" * 2001}, 422, "question_too_long", "question"),
    ("long prompt", {"question": "? " * 900}, 422, "prompt_too_long", None),
    ("unknown field", {"image_url": "http://127.0.0.1/"}, 422, "unknown_field", "image_url"),
    ("strange field", {"<b>\r\n": "x"}, 422, "unknown_field", None),
    ("large body", {"images": (IMAGE + bytes(2**20),)}, 413, "body_too_large", None),
]


@pytest.fixture(autouse=True)
def _still_answers(client: TestClient, question: Question) -> Iterator[None]:
    yield
    assert question.post(client, "multipart").status_code == 200


def check(response: Any, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    error = response.json()["error"]
    assert set(error) <= {"code", "message", "request_id", "field", "choices", "limit"}
    assert error.get("field") == field
    assert error["request_id"] == response.headers["x-request-id"]
    assert CODES[code].status == status and error["message"].endswith(".")
    assert not LEAKS.search(response.text) and len(response.content) < 1024
    return error


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].replace(" ", "-"))
def test_refused(client: TestClient, question: Question, form: str, case: Case) -> None:
    _, changes, status, code, field = case
    check(question.but(**changes).post(client, form), status, code, field)


def test_limits_are_named(client: TestClient, question: Question, form: str) -> None:
    for changes, limit in [
        ({"question": "x" * 2001}, 2000),
        ({"max_new_tokens": 2**31}, 2**31 - 1),
        ({"images": (IMAGE,) * 4, "depths": ()}, LIMITS["max_images"]),
        ({"images": (png_promising(9999, 9999),)}, LIMITS["max_image_px"]),
        ({"images": (IMAGE + bytes(2**20),)}, 2**20),
    ]:
        assert question.but(**changes).post(client, form).json()["error"]["limit"] == limit


def test_the_smallest_keep_ratio_is_named_and_works(
    client: TestClient, question: Question, form: str
) -> None:
    sent = question.but(method="tome", layers=[1], keep_ratio=0.2)
    limit = sent.post(client, form).json()["error"]["limit"]
    assert round(16 * limit) == 8
    assert sent.but(keep_ratio=limit).post(client, form).status_code == 200
    assert question.but(layers=[0, 3]).post(client, form).json()["error"]["limit"] == 2


def test_the_option_that_is_wrong_is_named(client: TestClient, question: Question, form: str) -> None:
    sent = question.but(method="saint", options={"gamma": 10, "tau": 2})
    message = sent.post(client, form).json()["error"]["message"]
    assert message == "saint: tau must be a number from -1 to 1, got 2."


def test_fields_in_the_address_are_refused(client: TestClient, question: Question, form: str) -> None:
    check(question.post(client, form, "/vqa?method=none"), 422, "unknown_field", "method")


def test_choices_are_named(client: TestClient, question: Question, form: str) -> None:
    unknown = check(question.but(method="zip").post(client, form), 422, "unknown_method", "method")
    assert unknown["choices"] == [*METHODS, "auto"]
    preset = question.but(depth_preset="kinect").post(client, form).json()["error"]
    assert preset["choices"] == [*PRESETS, "realsense:<scale>", "auto"]
    kind = question.but(depth_kind="feet").post(client, form).json()["error"]
    assert kind["choices"] == ["metric", "inverse", "relative"]
    word = question.but(depths=(), depth="guess").post(client, form).json()["error"]
    assert word["choices"] == ["client", "estimate", "none"]
    kernel = question.but(spatial_kernel="cosine").post(client, form).json()["error"]
    assert kernel["choices"] == ["sinusoidal", "distance"]
    option = question.but(method="saint", options={"tao": 1}).post(client, form).json()["error"]
    assert option["choices"] == ["tau", "gamma"]
    none = question.but(method="none", options={"tao": 1}).post(client, form).json()["error"]
    assert "choices" not in none
    field = check(question.but(ratio=0.5).post(client, form), 422, "unknown_field", "ratio")
    assert {"question", "keep_ratio", "images" if form == "json" else "image"} <= set(field["choices"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        '{"question": "x"}'.encode("utf-16"),
        b'{"question": "x", "temperature": NaN}',
        b'{"question": "x", "temperature": Infinity}',
        b'{"question": ' + b"[" * 900,
        b'{"question": ' + b"[" * 100_000,
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b"{" + b",".join(b'"%d":0' % i for i in range(30_000)) + b"}",
    ],
    ids=range(12),
)
def test_malformed_json(client: TestClient, body: bytes) -> None:
    check(client.post("/vqa", content=body, headers={"content-type": "application/json"}), 400, "bad_request")


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"question": "\ud800"}, 400, "bad_request", "question"),
        ({"question": 5}, 400, "bad_request", "question"),
        ({"question": None}, 422, "empty_question", "question"),
        ({"max_new_tokens": True}, 422, "bad_generation", "max_new_tokens"),
        ({"max_new_tokens": "8"}, 422, "bad_generation", "max_new_tokens"),
        ({"keep_ratio": "0.5"}, 422, "keep_ratio_out_of_range", "keep_ratio"),
        ({"method": 7}, 422, "unknown_method", "method"),
        ({"prop_attn": 1}, 422, "bad_merge_spec", "prop_attn"),
        ({"r": [True, 1, 1]}, 422, "bad_merge_spec", "r"),
        ({"r": {}}, 422, "bad_merge_spec", "r"),
        ({"r": "8"}, 422, "bad_merge_spec", "r"),
        ({"r_hw": "1,1"}, 422, "bad_merge_spec", "r_hw"),
        ({"layers": 1}, 422, "bad_merge_spec", "layers"),
        ({"layers": "1"}, 422, "bad_merge_spec", "layers"),
        ({"layers": [True]}, 422, "bad_merge_spec", "layers"),
        ({"spatial_kernel": 1}, 422, "bad_merge_spec", "spatial_kernel"),
        ({"options": '{"tau": 1}'}, 422, "bad_option", "options"),
        ({"options": [["tau", 1]]}, 422, "bad_option", "options"),
        ({"depth": ["client"]}, 422, "bad_depth", "depth"),
        ({"depth_preset": 7}, 422, "unknown_depth_preset", "depth_preset"),
        ({"depth_kind": 7}, 422, "bad_depth_kind", "depth_kind"),
        ({"depth_scale": "1000"}, 422, "bad_depth_scale", "depth_scale"),
        ({"depth_invalid": 0}, 422, "bad_depth_invalid", "depth_invalid"),
        ({"depth_invalid": "0"}, 422, "bad_depth_invalid", "depth_invalid"),
        ({"depth_invalid": [True]}, 422, "bad_depth_invalid", "depth_invalid"),
        ({"alpha": ["a"]}, 422, "bad_merge_spec", "alpha"),
        ({"images": "x"}, 400, "bad_request", "images"),
        ({"images": [7]}, 400, "bad_request", "images"),
        ({"images": ["%%%"]}, 400, "bad_request", "images"),
        ({"images": ["\u00e9"]}, 400, "bad_request", "images"),
        ({"depths": {"a": 1}}, 400, "bad_request", "depths"),
        ({"images": None}, 422, "image_count", "image"),
        ({"image": "x"}, 422, "unknown_field", "image"),
        ({"nothing": None}, 422, "unknown_field", "nothing"),
    ],
)
def test_json_of_the_wrong_kind(
    client: TestClient, changes: dict[str, Any], status: int, code: str, field: str
) -> None:
    body = json.dumps({"question": "x", "images": [], **changes}).encode()
    response = client.post("/vqa", content=body, headers={"content-type": "application/json"})
    check(response, status, code, field)


def test_number_beyond_all_floats(client: TestClient, question: Question) -> None:
    body = b'{"question": "x", "images": [], "temperature": 1e999}'
    response = client.post("/vqa", content=body, headers={"content-type": "application/json"})
    check(response, 422, "bad_generation", "temperature")
    check(question.but(temperature="nan").post(client, "multipart"), 422, "bad_generation", "temperature")


@pytest.mark.parametrize(
    "options",
    ["tau=1", "{", '{"tau": NaN}', '{"tau": 1e999}', "[" * 4000, '{"tau": 1' + " " * 5000 + "}", "null"],
    ids=range(7),
)
def test_options_that_are_no_object(client: TestClient, question: Question, options: str) -> None:
    sent = question.but(method="saint", options=options)
    check(sent.post(client, "multipart"), 422, "bad_option", "options")


PART = b'--b\r\nContent-Disposition: form-data; name="question"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        PART,
        PART[:-2],
        b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        b"--b\r\n" + b"X-A: b\r\n" * 50 + b"\r\nx\r\n--b--",
        PART * 300 + b"--b--",
        b"\r\n" * 100_000,
    ],
    ids=range(9),
)
def test_malformed_multipart(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    check(client.post("/vqa", content=body, headers=headers), 400, "bad_request")


def test_multipart_fields_of_the_wrong_kind(client: TestClient) -> None:
    def post(body: bytes) -> Any:
        return client.post(
            "/vqa", content=body + b"--b--\r\n", headers={"content-type": "multipart/form-data; boundary=b"}
        )

    check(post(PART + PART), 400, "bad_request", "question")
    check(post(PART.replace(b"question", b"image")), 422, "empty_question", "question")
    check(post(PART.replace(b"x\r\n", b"\xff\r\n")), 400, "bad_request", "question")
    depth = PART.replace(b"question", b"depth")
    check(post(PART + depth), 422, "bad_depth", "depth")
    check(post(PART + depth + depth), 400, "bad_request", "depth")
    image = PART.replace(b"question", b"image").replace(b"\r\nx\r\n", b"\r\n%s\r\n" % IMAGE)
    check(post(PART + image + depth.replace(b"x\r\n", b"\x89PNG\r\n")), 422, "bad_depth", "depth")
    check(post(PART.replace(b'"question"', b'"what"; filename="a"')), 422, "unknown_field", "what")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", "", "application/jsonx"]
)
def test_other_media_types(client: TestClient, kind: str) -> None:
    response = client.post("/vqa", content=b"{}", headers={"content-type": kind})
    check(response, 415, "unsupported_media_type")


def test_multipart_without_a_boundary(client: TestClient) -> None:
    response = client.post("/vqa", content=b"x", headers={"content-type": "multipart/form-data"})
    check(response, 400, "bad_request")


def test_body_is_counted_also_without_a_length(client: TestClient) -> None:
    chunks = (bytes(2**16) for _ in range(20))
    response = client.post("/vqa", content=chunks, headers={"content-type": "application/json"})
    check(response, 413, "body_too_large")


@pytest.mark.parametrize(
    ("verb", "url", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/vqa//", 404, "not_found"),
        ("GET", "/vqa", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
    ],
)
def test_addresses(client: TestClient, verb: str, url: str, status: int, code: str) -> None:
    response = client.request(verb, url)
    check(response, status, code)
    assert ("allow" in response.headers) is (status == 405)
