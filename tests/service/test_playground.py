"""The playground: its files, its policy, and what a program gets at the same address."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import service.api
from service.api.playground import LAZY, assets, version
from service.app import create_app
from service.settings import Settings
from tests.service.attacks import ATTACKS
from tests.service.conftest import Question

FOLDER = Path(service.api.__file__).parent / "page"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
IMPORT = re.compile(r"""(?:from|import\()\s*["']([^"']+)["']""")
MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def plain() -> TestClient:
    """A service that loads no model, which the page does not need."""
    return TestClient(create_app(Settings(depth_model="none")))


def addresses(text: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"#]+)"', text)


def test_a_browser_gets_the_page_and_a_program_the_list(plain: TestClient) -> None:
    page = plain.get("/", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html") and "<h1" in page.text
    assert "Accept" in page.headers["vary"] and page.headers["cache-control"] == "no-cache"
    for accept in ("*/*", "application/json"):
        listed = plain.get("/", headers={"accept": accept})
        assert listed.json()["groups of merged patches"] == "POST /vqa/overlay"


def test_the_page_names_only_files_that_are_there(plain: TestClient) -> None:
    named = addresses(plain.get("/", headers=BROWSER).text)
    assert f"/playground/{version()}/app.js" in named
    for address in named:
        assert address.startswith("/") and not address.startswith("//"), "nothing from elsewhere"
        assert plain.get(address).status_code == 200, address
    modules = {name for name in assets() if name.endswith(".js")}
    assert {address.rpartition("/")[2] for address in named} >= modules - set(LAZY)


def test_modules_import_only_each_other() -> None:
    for file in FOLDER.glob("*.js"):
        for name in IMPORT.findall(file.read_text()):
            assert name.startswith("./") and name[2:] in assets(), (file.name, name)


def test_nothing_on_the_page_can_run_text() -> None:
    """What parses a string as HTML or code is not there, and the policy would refuse it."""
    words = re.compile(
        r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|setHTML"
    )
    for file in FOLDER.iterdir():
        assert not words.search(file.read_text()), file.name
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", html)


@pytest.mark.parametrize("path", ["/", "app.js", "style.css", "points.js"])
def test_the_policy_lets_nothing_in_and_nothing_out(plain: TestClient, path: str) -> None:
    address = path if path == "/" else f"/playground/{version()}/{path}"
    headers = plain.get(address, headers=BROWSER).headers
    rules = dict(rule.split(maxsplit=1) for rule in headers["content-security-policy"].split("; "))
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert rules[name] == "'none'", name
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"] and "http" not in str(rules)
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_files_are_compressed_small_and_never_change(plain: TestClient) -> None:
    total = len(gzip.compress(plain.get("/", headers=BROWSER).content))
    for name, held in assets().items():
        address = f"/playground/{version()}/{name}"
        sent = plain.get(address, headers={"accept-encoding": "gzip"})
        assert sent.headers["content-encoding"] == "gzip" and sent.content == held.data
        assert "immutable" in sent.headers["cache-control"]
        assert "content-encoding" not in plain.get(address, headers={"accept-encoding": "identity"}).headers
        assert held.data == (FOLDER / name).read_bytes()
        total += len(held.gzipped)
    assert total < MOST_BYTES


@pytest.mark.parametrize(
    "path",
    ["0000000000000000/app.js", "{tag}/index.html", "{tag}/..%2froutes.py", "{tag}/nothing.js", "app.js"],
)
def test_nothing_else_is_at_the_address(plain: TestClient, path: str) -> None:
    assert plain.get(f"/playground/{path.format(tag=version())}").status_code == 404


def test_a_setting_turns_the_page_off() -> None:
    client = TestClient(create_app(Settings(depth_model="none", playground=False)))
    assert client.get("/", headers=BROWSER).json()["ask"] == "POST /vqa"
    assert client.get(f"/playground/{version()}/app.js").status_code == 404


def test_the_page_finds_its_files_below_a_prefix() -> None:
    app = create_app(Settings(depth_model="none", api_keys="a=secret"))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "root_path", '/robots"x')
        page = TestClient(app).get("/", headers=BROWSER).text
    assert f'src="/robots&quot;x/playground/{version()}/app.js"' in page
    assert 'data-root="/robots&quot;x"' in page and 'data-needs-key="yes"' in page


def test_a_question_comes_back_as_it_was_sent(client: TestClient) -> None:
    """Answers are JSON, whatever they hold; to show them as text is up to the page."""
    asked = Question(fields={"max_new_tokens": 1, "specs": [{"method": "none"}]})
    for attack in ATTACKS[:3]:
        response = asked.but(question=attack).post(client, "json", "/vqa/compare")
        assert response.json()["question"] == attack
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("field", ["method", "depth_preset", "order"])
def test_refusals_repeat_no_attack(client: TestClient, field: str) -> None:
    for attack in ATTACKS:
        response = Question(fields={field: attack}).post(client, "json", "/vqa/overlay")
        assert response.status_code in (400, 422), attack
        assert attack not in response.text and json.dumps(attack)[1:-1] not in response.text
