"""The page at /docs: its own files, unchanged, and a policy under which nothing else is loaded or run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import service.api
from service.api.swagger import TYPES
from service.app import create_app
from service.settings import Settings

FOLDER = Path(service.api.__file__).parent / "swagger_ui"
FOREIGN = re.compile(r"""(?:src|href)=["']?(?:https?:)?//""")


def test_the_files_are_those_of_the_package() -> None:
    lines = (line.split() for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in lines}
    assert set(TYPES) - {"start.js"} < set(sums) and {"LICENSE", "NOTICE", "VERSION"} < set(sums)
    for name, expected in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected, name
    version = (FOLDER / "VERSION").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert f'"{version}"' in (FOLDER / "swagger-ui-bundle.js").read_text()


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html") and not FOREIGN.search(page.text)
    assert FOREIGN.search('<script src="https://cdn.example/x.js">')
    named = set(re.findall(r'(?:src|href)="/docs/([^"]+)"', page.text))
    assert named == set(TYPES)
    for name in named:
        assert client.get(f"/docs/{name}").headers["content-type"].startswith(TYPES[name])


@pytest.mark.parametrize("path", ["/docs", *(f"/docs/{name}" for name in TYPES)])
def test_no_script_but_ours_runs(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    rules = dict(rule.split(maxsplit=1) for rule in headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in client.get("/docs").text, "no script inside the page"


def test_nothing_else_is_at_the_address(client: TestClient) -> None:
    for name in ("index.html", "SHA256SUMS", "README.md", "oauth2-redirect", "%2e%2e%2fswagger.py"):
        assert client.get(f"/docs/{name}").status_code == 404


def test_the_page_finds_its_files_below_a_prefix() -> None:
    """As a proxy that takes the prefix off tells it, for instance with --root-path."""
    app = create_app(Settings(depth_model="none"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "root_path", "/robots")
        page = TestClient(app).get("/docs").text
    assert 'src="/robots/docs/start.js"' in page and 'data-document="/robots/openapi.json"' in page
