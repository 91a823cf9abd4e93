"""Every refusal has its own code in both request forms, leaks nothing, and leaves the server well."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.errors import ERRORS
from tests.depth.files import npy, npy_with_header, png8, png16
from tests.service.conftest import LIMITS, Question
from tests.service.files import DEPTH, IMAGE, PIXELS, animation, encode, png_promising
from tosa import METHODS

LEAKS = re.compile(r"Traceback|0x[0-9a-f]{6,}|site-packages|/tmp/|/work/|\.py\b|Error\(|object at")
ROOM = np.ones((48, 64), dtype="f4")

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
    ("second image bad", {"images": (IMAGE, b"x"), "depths": ()}, 422, "bad_image", "image"),
    ("8-bit depth", {"depths": (png8(PIXELS[..., 0]),)}, 422, "bad_depth", "depth"),
    ("colour depth", {"depths": (IMAGE,)}, 422, "bad_depth", "depth"),
    ("cut depth", {"depths": (DEPTH[:-100],)}, 422, "bad_depth", "depth"),
    ("empty depth", {"depths": (b"",)}, 422, "bad_depth", "depth"),
    ("no valid depth", {"depths": (png16(ROOM * 0),)}, 422, "bad_depth", "depth"),
    ("all NaN", {"depths": (npy(ROOM * np.nan),)}, 422, "bad_depth", "depth"),
    ("pickle", {"depths": (npy_with_header("{'descr': '|O', 'shape': (1,)}"),)}, 422, "bad_depth", "depth"),
    ("bad depth nobody uses", {"depths": (b"x",), "method": "none"}, 422, "bad_depth", "depth"),
    ("huge depth", {"depths": (npy(np.ones((1001, 1000), "f2"))[:200],)}, 413, "depth_too_large", "depth"),
    ("turned depth", {"depths": (png16(ROOM.T),)}, 422, "depth_shape_mismatch", "depth"),
    ("two depths", {"depths": (DEPTH, DEPTH)}, 422, "depth_count", "depth"),
    ("scale 0", {"depth_scale": 0}, 422, "bad_depth_scale", "depth_scale"),
    ("scale word", {"depth_scale": "mm"}, 422, "bad_depth_scale", "depth_scale"),
    ("tosa without depth", {"depths": (), "method": "tosa"}, 422, "depth_required", "depth"),
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
    ("schedule word", {"schedule": "zigzag"}, 422, "bad_merge_spec", "schedule"),
    ("schedule number", {"schedule": 1.5}, 422, "bad_merge_spec", "schedule"),
    ("alpha word", {"alpha": "zigzag"}, 422, "bad_merge_spec", "alpha"),
    ("alpha number", {"alpha": 1.5}, 422, "bad_merge_spec", "alpha"),
    ("alpha list", {"alpha": [0.5, 0.5]}, 422, "bad_merge_spec", "alpha"),
    ("order", {"order": "zigzag"}, 422, "bad_merge_spec", "order"),
    ("prop_attn", {"prop_attn": "perhaps"}, 422, "bad_merge_spec", "prop_attn"),
    ("no answer", {"max_new_tokens": 0}, 422, "bad_generation", "max_new_tokens"),
    ("long answer", {"max_new_tokens": 257}, 422, "bad_generation", "max_new_tokens"),
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
    assert ERRORS[code].status == status and error["message"].endswith(".")
    assert not LEAKS.search(response.text) and len(response.content) < 1024
    return error


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].replace(" ", "-"))
def test_refused(client: TestClient, question: Question, form: str, case: Case) -> None:
    _, changes, status, code, field = case
    check(question.but(**changes).post(client, form), status, code, field)


def test_limits_are_named(client: TestClient, question: Question, form: str) -> None:
    for changes, limit in [
        ({"question": "x" * 2001}, 2000),
        ({"max_new_tokens": 257}, 256),
        ({"images": (IMAGE,) * 4, "depths": ()}, LIMITS["max_images"]),
        ({"images": (png_promising(9999, 9999),)}, LIMITS["max_image_px"]),
        ({"images": (IMAGE + bytes(2**20),)}, 2**20),
    ]:
        assert question.but(**changes).post(client, form).json()["error"]["limit"] == limit


def test_fields_in_the_address_are_refused(client: TestClient, question: Question, form: str) -> None:
    check(question.post(client, form, "/vqa?method=none"), 422, "unknown_field", "method")


def test_choices_are_named(client: TestClient, question: Question, form: str) -> None:
    unknown = check(question.but(method="zip").post(client, form), 422, "unknown_method", "method")
    assert unknown["choices"] == list(METHODS)
    required = question.but(method="tosa", depths=()).post(client, form)
    assert check(required, 422, "depth_required", "depth")["choices"] == ["none", "tome"]
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
        b'\xef\xbb\xbf{"question": "x"}',
        b'{"question": "x", "temperature": NaN}',
        b'{"question": "x", "temperature": Infinity}',
        b'{"question": ' + b"[" * 900,
        b'{"question": ' + b"[" * 100_000,
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b"{" + b",".join(b'"%d":0' % i for i in range(30_000)) + b"}",
    ],
    ids=range(13),
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
    check(post(PART.replace(b'"question"', b'"question"; filename="a"')), 400, "bad_request", "question")
    check(post(PART.replace(b"question", b"image")), 400, "bad_request", "image")
    check(post(PART.replace(b"x\r\n", b"\xff\r\n")), 400, "bad_request", "question")
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
        ("POST", "/vqa/", 404, "not_found"),
        ("GET", "/vqa", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
    ],
)
def test_addresses(client: TestClient, verb: str, url: str, status: int, code: str) -> None:
    response = client.request(verb, url)
    check(response, status, code)
    assert ("allow" in response.headers) is (status == 405)
