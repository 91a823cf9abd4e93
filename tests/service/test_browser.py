"""In Chromium: a person tries a request out in Swagger UI, and pages of other origins ask what they may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.needs import needs
from tests.service.browser import chromium, page_of
from tests.service.files import DEPTH, IMAGE
from tests.service.live import Live, live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = needs("chromium", "playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(checkpoint: Path, estimator: Path) -> Iterator[Live]:
    with live(checkpoint, depth_model=str(estimator), depth_size_px=56) as served:
        yield served


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"image": tmp_path / "rgb.png", "depth": tmp_path / "depth.png"}
    for path, data in zip(found.values(), (IMAGE, DEPTH), strict=True):
        path.write_bytes(data)
    return found


@pytest.fixture
def page(browser: Browser, served: Live) -> Iterator[Page]:
    """The page of requests, which must not complain, and must not ask any other machine."""
    seen: list[str] = []
    with page_of(browser, seen) as page:
        page.goto(f"http://127.0.0.1:{served.port}/docs")
        page.wait_for_selector(".opblock")
        yield page
        assert seen == []


def operation(page: Page, path: str) -> Locator:
    """Open an operation and press Try it out."""
    block = page.locator(f'.opblock:has([data-path="{path}"])')
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def choose(block: Locator, name: str, *files: Path) -> None:
    """Choose files for a list, which shows one button; there is another one to add more."""
    row = block.locator(f'tr[data-property-name="{name}"]')
    for at, file in enumerate(files):
        if at:
            row.locator(".json-schema-form-item-add").click()
        row.locator("input[type=file]").nth(at).set_input_files(file)


def write(block: Locator, name: str, text: str) -> None:
    block.locator(f'tr[data-property-name="{name}"]').locator("input, textarea").first.fill(text)


def execute(block: Locator) -> tuple[str, Any]:
    """Press Execute; return the status and the body that the page shows."""
    block.get_by_role("button", name="Execute").click()
    row = block.locator(".live-responses-table tbody tr.response")
    status = row.locator(".response-col_status").inner_text()
    body = row.locator(".highlight-code code").first.inner_text()
    return status.split()[0], json.loads(body)


def test_a_person_asks(page: Page, files: dict[str, Path]) -> None:
    block = operation(page, "/vqa")
    choose(block, "image", files["image"])
    choose(block, "depth", files["depth"])
    status, body = execute(block)
    assert (status, body["depth"]["source"]) == ("200", "client"), body
    assert body["merge"]["method"] == "tosa"


def test_a_person_asks_with_what_they_choose(page: Page, files: dict[str, Path]) -> None:
    block = operation(page, "/vqa")
    choose(block, "image", files["image"], files["image"])
    write(block, "question", "how many cubes ?")
    row = block.locator('tr[data-property-name="method"]')
    row.locator("select").select_option("saint")
    write(block, "options", '{"tau": 0.8}')
    write(block, "keep_ratio", "0.5")
    write(block, "max_new_tokens", "3")
    status, body = execute(block)
    assert (status, body["merge"]["method"]) == ("200", "saint"), body
    assert body["merge"]["keep_ratio"] == 0.5 and body["usage"]["completion_tokens"] <= 3


def test_a_person_compares(page: Page, files: dict[str, Path]) -> None:
    block = operation(page, "/vqa/compare")
    choose(block, "image", files["image"])
    choose(block, "depth", files["depth"])
    status, body = execute(block)
    assert status == "200" and [one["spec"]["method"] for one in body["results"]] == ["none", "tosa"], body


def test_a_person_inspects_depth(page: Page, files: dict[str, Path]) -> None:
    block = operation(page, "/depth/inspect")
    choose(block, "depth", files["depth"])
    assert execute(block)[0] == "200"


def test_a_person_with_a_key_authorizes_first(
    browser: Browser, checkpoint: Path, files: dict[str, Path]
) -> None:
    seen: list[str] = []
    with live(checkpoint, api_keys="robot=secret") as served, page_of(browser, seen) as page:
        page.goto(f"http://127.0.0.1:{served.port}/docs")
        page.locator("button.authorize").first.click()
        page.locator("section").filter(has_text="X-API-Key").locator("input").last.fill("secret")
        page.locator(".auth-container").filter(has_text="X-API-Key").locator("button.authorize").click()
        page.locator(".modal-ux .close-modal").click()
        block = operation(page, "/vqa")
        choose(block, "image", files["image"])
        status, body = execute(block)
    assert status == "200", body
    assert seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        *(pytest.param(path, marks=pytest.mark.long) for path in ("/vqa", "/vqa/compare", "/depth/inspect")),
    ],
)
def test_the_example_in_json_is_answered_as_it_stands(page: Page, path: str) -> None:
    block = operation(page, path)
    kinds = block.locator(".opblock-section-request-body select.content-type")
    if kinds.count():
        kinds.select_option("application/json")
    status, body = execute(block)
    assert status == "200", body


PAGE = """<!doctype html><meta charset="utf-8">
<form id="f" method="post" enctype="multipart/form-data"></form>
<script>
async function ask(url, kind) {
  const body = new FormData();
  body.append("question", "how many cubes ?");
  body.append("image", await (await fetch("/rgb.png")).blob());
  const headers = {"Content-Type": "application/json", "X-API-Key": "none"};
  const json = {method: "POST", body: "{}", headers};
  const answer = await fetch(url, kind === "json" ? json : {method: "POST", body});
  return [answer.status, answer.headers.get("X-Request-ID") !== null, await answer.text()];
}
</script>"""


class Site(BaseHTTPRequestHandler):
    """A page of another origin, and a picture."""

    def do_GET(self) -> None:
        kind, body = ("image/png", IMAGE) if self.path == "/rgb.png" else ("text/html", PAGE.encode())
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answers(served: Live) -> int:
    """Count the answers that the service has given."""
    lines = served.client.get("/metrics").text.splitlines()
    counted = [line for line in lines if "requests_total{" in line and 'status="200"' in line]
    return sum(int(float(line.split()[-1])) for line in counted)


def test_a_page_of_another_origin_makes_nothing_run(browser: Browser, served: Live) -> None:
    before, seen = answers(served), list[str]()
    with site() as origin, page_of(browser, seen) as page:
        page.goto(origin)
        url = f"http://127.0.0.1:{served.port}/vqa"
        for kind in ("form", "json"):
            with pytest.raises(Exception, match="Failed to fetch"):
                page.evaluate("([url, kind]) => ask(url, kind)", [url, kind])
        page.evaluate("(url) => { f.action = url; f.submit(); }", url)
        page.wait_for_url(url)
        assert "origin_refused" in page.inner_text("body")
    assert answers(served) == before


def test_a_page_that_is_allowed_asks_and_reads(browser: Browser, checkpoint: Path) -> None:
    seen: list[str] = []
    with site() as origin, live(checkpoint, cors_origins=origin) as served, page_of(browser, seen) as page:
        page.goto(origin)
        url = f"http://127.0.0.1:{served.port}/vqa"
        status, named, text = page.evaluate("([url, kind]) => ask(url, kind)", [url, "form"])
        assert (status, named) == (200, True) and json.loads(text)["finish_reason"] in ("stop", "length")
        status, named, text = page.evaluate("([url, kind]) => ask(url, kind)", [url, "json"])
        assert (status, named, json.loads(text)["error"]["code"]) == (422, True, "empty_question")
