"""gzip bodies are inflated within the limit; other encodings, and text that is not UTF-8, are named."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.encodings import inflate
from service.errors import ServiceError
from tests.service.chats import chat
from tests.service.conftest import LIMITS, Question
from tests.service.files import IMAGE
from tests.service.test_refusals import check

JSON = {"content-type": "application/json"}
LIMIT = int(LIMITS["max_body_mib"] * 2**20)


class _Writer:
    def post(self, url: str, json: Any) -> Any:
        return json


def body_of(question: Question) -> bytes:
    return json.dumps(question.post(_Writer(), "json")).encode()


def send(client: TestClient, body: bytes, path: str = "/vqa", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, content=body, headers={**JSON, **named})


@pytest.mark.parametrize("name", ["gzip", "GZip", "x-gzip", "identity, gzip"])
def test_a_gzip_body_is_inflated(client: TestClient, question: Question, name: str) -> None:
    response = send(client, gzip.compress(body_of(question)), content_encoding=name)
    assert response.status_code == 200, response.text


def test_every_address_with_a_body_inflates(client: TestClient, question: Question) -> None:
    asked = json.loads(body_of(question))
    specs, depths = {**asked, "specs": [{}]}, {"depths": asked["depths"]}
    for path, body in (("/vqa/compare", specs), ("/v1/chat/completions", chat()), ("/depth/inspect", depths)):
        packed = gzip.compress(json.dumps(body).encode())
        assert send(client, packed, path, content_encoding="gzip").status_code == 200, path


def test_a_gzip_form_is_inflated(client: TestClient) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = part % (b"question", b"x") + part % (b"image", IMAGE) + b"--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b", "content-encoding": "gzip"}
    assert client.post("/vqa", content=gzip.compress(body), headers=headers).status_code == 200


def test_the_limit_counts_inflated_bytes(client: TestClient) -> None:
    body = b'{"question": "x"' + b" " * (LIMIT - 17) + b"}"
    assert len(body) == LIMIT
    at_limit = send(client, gzip.compress(body), content_encoding="gzip")
    check(at_limit, 422, "image_count", "image")
    over = send(client, gzip.compress(body + b" "), content_encoding="gzip")
    assert check(over, 413, "body_too_large")["limit"] == LIMIT


def test_a_bomb_is_refused_without_its_memory() -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    tracemalloc.start()
    with pytest.raises(ServiceError, match="body_too_large"):
        inflate(bomb, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * LIMIT


PACKED = gzip.compress(b"{}" * 1000)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        PACKED[:-1],
        PACKED[:-9],
        PACKED[:20],
        PACKED[:-8] + bytes(8),
        PACKED + b"x",
        PACKED * 2,
        zlib.compress(b"{}"),
    ],
    ids=range(9),
)
def test_damaged_gzip_is_refused(client: TestClient, broken: bytes) -> None:
    sentence = check(send(client, broken, content_encoding="gzip"), 400, "bad_request")["message"]
    assert "gzip" in sentence


@pytest.mark.parametrize("name", ["br", "deflate", "zstd", "gzip, gzip", "compress"])
def test_another_encoding_is_refused_by_name(client: TestClient, question: Question, name: str) -> None:
    error = check(
        send(client, body_of(question), content_encoding=name),
        415,
        "unsupported_media_type",
        "Content-Encoding",
    )
    assert error["choices"] == ["gzip", "identity"] and "gzip" in error["message"]


def test_no_encoding_may_be_named_as_such(client: TestClient, question: Question) -> None:
    assert send(client, body_of(question), content_encoding="identity").status_code == 200


def test_gzip_without_its_header_is_named(client: TestClient, question: Question) -> None:
    sentence = check(send(client, gzip.compress(body_of(question))), 400, "bad_request")["message"]
    assert "Content-Encoding: gzip" in sentence


def test_a_byte_order_mark_is_no_part_of_json(client: TestClient, question: Question) -> None:
    assert send(client, b"\xef\xbb\xbf" + body_of(question)).status_code == 200
    asked = json.dumps(chat()).encode("utf-8-sig")
    assert send(client, asked, "/v1/chat/completions").status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_wide_characters_is_named(client: TestClient, encoding: str) -> None:
    body = '{"question": "x"}'.encode(encoding)
    assert "UTF-16" in check(send(client, body), 400, "bad_request")["message"]
