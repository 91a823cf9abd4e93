"""Forms as browsers, libraries and scripts write them: empty inputs, files with odd names, texts as files."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.service.chats import uri
from tests.service.conftest import Question
from tests.service.files import DEPTH, IMAGE

QUESTION = b'name="question"', b"how many cubes ?"
SHORT = b'name="max_new_tokens"', b"4"
Piece = tuple[bytes, bytes]


def post(client: TestClient, *pieces: Piece, path: str = "/vqa") -> Any:
    """Send a form of pieces: what follows form-data in the head of a part, and its bytes."""
    parts = [
        b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (named, data) for named, data in pieces
    ]
    body = b"".join(parts) + b"--b--\r\n"
    return client.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=b"})


def ask(client: TestClient, *pieces: Piece) -> Any:
    return post(client, QUESTION, SHORT, *pieces)


def error(response: Any) -> tuple[str, str | None]:
    return response.json()["error"]["code"], response.json()["error"].get("field")


EMPTY_FILE = b'name="%s"; filename=""\r\nContent-Type: application/octet-stream'


def test_an_input_nobody_filled_in_was_not_sent(client: TestClient) -> None:
    """A page with a form sends every input."""
    names = (
        "seed",
        "keep_ratio",
        "method",
        "options",
        "prop_attn",
        "depth_preset",
        "timeout_s",
        "stream",
        "r",
    )
    empty = [(b'name="%s"' % name.encode(), b"") for name in names]
    files = [(EMPTY_FILE % b"depth", b""), (EMPTY_FILE % b"image", b"")]
    response = ask(client, *empty, *files, (b'name="image"; filename="a.png"', IMAGE))
    assert response.status_code == 200, response.text
    assert response.json()["merge"]["method"] == "none" and response.json()["depth"] is None


def test_what_must_be_there_is_missed_when_it_is_empty(client: TestClient) -> None:
    image = b'name="image"; filename="a.png"', IMAGE
    assert error(post(client, (b'name="question"', b""), image)) == ("empty_question", "question")
    assert error(ask(client, (EMPTY_FILE % b"image", b""))) == ("image_count", "image")
    specs = post(client, QUESTION, image, (b'name="specs"', b""), path="/vqa/compare")
    assert error(specs) == ("compare_count", "specs")
    assert error(post(client, (EMPTY_FILE % b"depth", b""), path="/depth/inspect")) == (
        "depth_count",
        "depth",
    )


def test_an_empty_file_with_a_name_is_an_empty_file(client: TestClient) -> None:
    """Somebody chose it: leaving it out would answer another question than they asked."""
    image = b'name="image"; filename="a.png"', IMAGE
    assert error(ask(client, image, (b'name="depth"; filename="d.png"', b""))) == ("bad_depth", "depth")
    assert error(ask(client, (b'name="image"; filename="a.png"', b""))) == ("bad_image", "image")


def test_an_empty_part_of_an_unknown_name_is_unknown(client: TestClient) -> None:
    image = b'name="image"; filename="a.png"', IMAGE
    assert error(ask(client, image, (b'name="sead"', b""))) == ("unknown_field", "sead")


NAMES = {
    "plain": b'; filename="a.png"',
    "both": b"; filename=\"a.png\"; filename*=UTF-8''%e2%82%ac.png",
    "extended": b"; filename*=UTF-8''%e2%82%ac%20rates.png",
    "continued": b'; filename*0="long"; filename*1=".png"',
    "none": b"",
    "type": b"\r\nContent-Type: image/png",
}


@pytest.mark.parametrize("named", NAMES.values(), ids=NAMES)
def test_a_file_is_a_file_however_it_is_named(client: TestClient, named: bytes) -> None:
    response = ask(client, (b'name="image"' + named, IMAGE), (b'name="depth"' + named, DEPTH))
    assert response.status_code == 200, response.text
    assert response.json()["depth"]["source"] == "client"
    inspected = post(client, (b'name="depth"' + named, DEPTH), path="/depth/inspect")
    assert inspected.json()["dtype"] == "uint16", inspected.text


@pytest.mark.parametrize(("word", "source"), [(b"none", None), (b"estimate", "estimate")])
def test_a_word_of_depth_stays_a_word(client: TestClient, word: bytes, source: str | None) -> None:
    image = b'name="image"; filename="a.png"', IMAGE
    tosa = b'name="method"', b"tosa"
    answer = ask(client, image, tosa, (b'name="depth"', word)).json()
    assert answer["depth"]["source"] == (source or "none")
    assert error(ask(client, image, (b'name="depth"', b"guess"))) == ("bad_depth", "depth")


AS_FILES = {
    "blob": b'; filename="blob"\r\nContent-Type: application/json',
    "file": b'; filename="specs.json"',
    "json": b"\r\nContent-Type: application/json",
}


@pytest.mark.parametrize("named", AS_FILES.values(), ids=AS_FILES)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_text_that_comes_as_a_file_is_read(client: TestClient, named: bytes, mark: bytes) -> None:
    """Swagger UI and generated clients send JSON so, `requests` sends every text of `files=` so."""
    image = b'name="image"; filename="a.png"', IMAGE
    saint = (b'name="method"' + named, mark + b"saint"), (b'name="keep_ratio"' + named, b"0.5")
    options = b'name="options"' + named, mark + b'{"tau": 0.8}'
    response = ask(client, image, *saint, options)
    assert response.status_code == 200, response.text
    specs = json.dumps([{"method": "none"}, {"method": "tome", "keep_ratio": 0.5}]).encode()
    compared = post(
        client, QUESTION, SHORT, image, (b'name="specs"' + named, mark + specs), path="/vqa/compare"
    )
    assert len(compared.json()["results"]) == 2


def test_text_that_is_no_text_is_refused(client: TestClient) -> None:
    image = b'name="image"; filename="a.png"', IMAGE
    assert error(ask(client, image, (b'name="method"; filename="a"', IMAGE))) == ("bad_request", "method")
    assert error(ask(client, image, (b'name="max_new_tokens"', b"5"))) == ("bad_request", "max_new_tokens")


def test_a_data_uri_is_a_file_in_both_forms(client: TestClient, question: Question) -> None:
    """A canvas of a page gives one."""
    pieces = ((b'name="image"', uri(IMAGE).encode()), (b'name="depth"', uri(DEPTH).encode()))
    assert ask(client, *pieces).json()["depth"]["source"] == "client"
    body = {**question.fields, "images": [uri(IMAGE, "image/whatever")], "depths": [uri(DEPTH)]}
    assert client.post("/vqa", json=body).json()["depth"]["source"] == "client"


@pytest.mark.parametrize("address", ["https://127.0.0.1/a.png", "http://127.0.0.1/a.png"])
def test_an_address_is_refused_as_one(client: TestClient, question: Question, address: str) -> None:
    assert error(ask(client, (b'name="image"', address.encode()))) == ("url_refused", "image")
    body = {**question.fields, "images": [address]}
    assert error(client.post("/vqa", json=body)) == ("url_refused", "images")


PLAIN = base64.b64encode(IMAGE).decode()
VARIANTS = {
    "lines": base64.encodebytes(IMAGE).decode(),
    "crlf": base64.encodebytes(IMAGE).decode().replace("\n", "\r\n"),
    "url-safe": base64.urlsafe_b64encode(IMAGE).decode(),
    "unpadded": PLAIN.rstrip("="),
    "url-safe, unpadded": base64.urlsafe_b64encode(IMAGE + b"\0").decode().rstrip("="),
    "padded": base64.b64encode(IMAGE + b"\0").decode(),
    "spaces around": f" {PLAIN}\n",
    "uri in lines": f"data:image/png;base64,{base64.encodebytes(IMAGE).decode()}",
    "quoted uri": f"data:image/png;base64,{quote(PLAIN, safe='')}",
}


def test_the_variants_differ_from_the_plain_one() -> None:
    assert {"+", "/", "="} <= set(VARIANTS["padded"] + PLAIN) and PLAIN not in VARIANTS.values()


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_of_base64_is_decoded(client: TestClient, question: Question, variant: str) -> None:
    response = client.post("/vqa", json={**question.fields, "images": [variant]})
    assert response.status_code == 200, response.text
    written = variant if variant.startswith("data:") else f"data:image/png;base64,{variant}"
    part = {"type": "image_url", "image_url": {"url": written}}
    chat = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "x"}]}], "max_tokens": 2}
    assert client.post("/v1/chat/completions", json=chat).status_code == 200


@pytest.mark.parametrize(
    "broken",
    [PLAIN[:-5], f"{PLAIN[:8]}={PLAIN[8:]}", f"{PLAIN}====", f"{PLAIN[:9]}\u00e9", f"{PLAIN[:9]}\0", "A"],
)
def test_what_is_no_base64_is_refused_and_located(
    client: TestClient, question: Question, broken: str
) -> None:
    for images, field in (([broken], "images"), ([PLAIN, PLAIN, broken], "images[2]")):
        response = client.post("/vqa", json={**question.fields, "images": images})
        assert error(response) in (
            ("bad_request", field),
            ("bad_image", field.replace("images", "image", field == "images")),
        )


def test_a_bad_file_among_several_is_located(client: TestClient, question: Question) -> None:
    """By its name in this form of request, counted from 0."""
    three = question.but(images=(IMAGE, IMAGE, b"x"), depths=())
    assert error(three.post(client, "multipart")) == ("bad_image", "image[2]")
    assert error(three.post(client, "json")) == ("bad_image", "images[2]")
    deep = question.but(images=(IMAGE, IMAGE), depths=(DEPTH, DEPTH[:-100]))
    assert error(deep.post(client, "multipart")) == ("depth_truncated", "depth[1]")
    assert error(deep.post(client, "json")) == ("depth_truncated", "depths[1]")
    compared = three.but(specs=[{}]).post(client, "json", "/vqa/compare")
    assert error(compared) == ("bad_image", "images[2]")


def test_a_bad_file_of_a_conversation_is_located(client: TestClient) -> None:
    parts = [{"type": "image_url", "image_url": {"url": uri(data)}} for data in (IMAGE, b"x")]
    depths = [{"type": "depth_url", "depth_url": {"url": uri(data)}} for data in (DEPTH, b"x")]
    text = {"type": "text", "text": "how many ?"}
    for content, at in (([text, *parts], "[2].image_url"), ([parts[0], depths[1], text], "[1].depth_url")):
        chat = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": content}]}
        response = client.post("/v1/chat/completions", json=chat).json()["error"]
        assert response["param"] == f"messages[1].content{at}"
