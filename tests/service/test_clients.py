"""Clients that people use, each as its own documentation writes a request, against a service on a socket."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.loopback import PATIENCE_S
from tests.needs import needs, program
from tests.service.chats import depth, image, text, uri, user
from tests.service.files import DEPTH, IMAGE
from tests.service.live import Live, live

FIELDS = {"question": "how many cubes ?", "max_new_tokens": "4"}
JSON_FIELDS = {"question": "how many cubes ?", "max_new_tokens": 4}


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


@pytest.fixture
def url(served: Live) -> str:
    return f"http://127.0.0.1:{served.port}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "rgb.png").write_bytes(IMAGE)
    (tmp_path / "depth.png").write_bytes(DEPTH)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "specs.json").write_text('[{"method": "none"}, {"method": "tome", "keep_ratio": 0.5}]')
    body = {**JSON_FIELDS, "images": [base64.b64encode(IMAGE).decode()]}
    (tmp_path / "body.json").write_text(json.dumps(body))
    (tmp_path / "body.json.gz").write_bytes(gzip.compress(json.dumps(body).encode()))
    return tmp_path


def run(name: str, folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [str(program(name)), *arguments], cwd=folder, capture_output=True, timeout=PATIENCE_S, check=True
    )
    return json.loads(done.stdout)


ASK = ("-F", "question=how many cubes ?", "-F", "max_new_tokens=4", "-F", "image=@rgb.png")


@needs("curl")
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("-F", "depth=@depth.png", "-F", "method=tosa"),
        ("-F", "depth=@depth.png;filename="),
        ("-F", "seed=", "-F", "depth="),
        ("-H", "Expect: 100-continue"),
        ("--http1.0",),
        ("-F", "method=<-"),
    ],
    ids=["plain", "depth", "no filename", "empty", "expect", "http 1.0", "stdin"],
)
def test_curl_with_a_form(url: str, files: Path, more: tuple[str, ...]) -> None:
    assert "answer" in run("curl", files, "-sS", f"{url}/vqa", *ASK, *more)


@needs("curl")
def test_curl_with_specs_from_a_file(url: str, files: Path) -> None:
    for specs in ("specs=@specs.json", "specs=<specs.json", "specs=@specs.json;type=application/json"):
        assert len(run("curl", files, "-sS", f"{url}/vqa/compare/", *ASK, "-F", specs)["results"]) == 2


@needs("curl")
def test_curl_with_json_and_gzip(url: str, files: Path) -> None:
    json_type = ("-H", "Content-Type: application/json")
    assert "answer" in run("curl", files, "-sS", f"{url}/vqa", "--json", "@body.json")
    packed = ("--data-binary", "@body.json.gz", "-H", "Content-Encoding: gzip")
    assert "answer" in run("curl", files, "-sS", f"{url}/vqa", *json_type, *packed)


@needs("wget")
def test_wget(url: str, files: Path) -> None:
    posted = ("--header=Content-Type: application/json", "--post-file=body.json", f"{url}/vqa")
    assert "answer" in run("wget", files, "-qO-", *posted)


def test_requests(url: str) -> None:
    session = requests.Session()
    session.trust_env = False
    asked = session.post(f"{url}/vqa", data=FIELDS, files={"image": IMAGE, "depth": ("d.png", DEPTH)})
    assert asked.json()["depth"]["source"] == "client"
    all_files = {**FIELDS, "image": ("r\u00f6t.png", IMAGE, "image/png")}
    assert session.post(f"{url}/vqa", files=all_files).status_code == 200, "texts with filenames"
    body = {**JSON_FIELDS, "images": [uri(IMAGE)], "depths": [base64.encodebytes(DEPTH).decode()]}
    assert session.post(f"{url}/vqa/", json=body).json()["depth"]["source"] == "client"
    assert session.head(url).status_code == 200
    session.close()


def test_httpx(served: Live) -> None:
    files = [("image", IMAGE), ("image", ("b.png", IMAGE)), ("depth", DEPTH), ("depth", DEPTH)]
    assert served.client.post("/vqa", data=FIELDS, files=files).status_code == 200
    packed = gzip.compress(json.dumps({**JSON_FIELDS, "images": [uri(IMAGE)]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert served.client.post("/vqa", content=packed, headers=headers).status_code == 200
    pieces = iter([packed[:50], packed[50:]])
    assert served.client.post("/vqa", content=pieces, headers=headers).status_code == 200, "in chunks"


def test_the_standard_library(url: str, served: Live) -> None:
    body = json.dumps({**JSON_FIELDS, "images": [base64.encodebytes(IMAGE).decode()]}).encode()
    request = urllib.request.Request(f"{url}/vqa", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S) as answer:
        assert json.load(answer)["finish_reason"] in ("stop", "length")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    for path in ("/", "/readyz/"):
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1/", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, *messages: Any, **more: Any) -> Any:
    name = client.models.list().data[0].id
    return client.chat.completions.create(model=name, messages=list(messages), max_tokens=4, **more)


def test_openai(client: openai.OpenAI) -> None:
    first = user(text(), image(), depth())
    done = ask(client, first, extra_body={"merge": {"method": "tosa"}})
    assert done.choices[0].message.content and done.model_extra["depth"]["source"] == "client"
    chunks = list(ask(client, first, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_openai_with_what_it_writes_itself(client: openai.OpenAI) -> None:
    """A message that came back, one without content, and none that the service would have to go on with."""
    first = user(text(), image())
    said = ask(client, first).choices[0].message.model_dump(exclude_none=True)
    assert ask(client, first, said, user(text("and now ?"))).choices[0].message.content
    silent = {"role": "assistant", "content": None}
    assert ask(client, first, silent, user(text("and now ?"))).choices[0].message.content
    with pytest.raises(openai.UnprocessableEntityError, match="does not continue an answer") as refused:
        ask(client, first, said)
    assert (refused.value.code, refused.value.param) == ("bad_turns", "messages[1].role")
