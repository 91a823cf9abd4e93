"""The code that the page shows works when it is pasted: it gives the answer that the page gave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.loopback import PATIENCE_S
from tests.needs import needs
from tests.page.conftest import Open, answered, first_room

if TYPE_CHECKING:
    from playwright.sync_api import Page

STARTS = {"curl": "curl -sS", "Python": "import httpx", "OpenAI client": "from openai import"}
QUESTION = """What's "left" of $HOME, `id` & the <b>lamp</b>?"""


def saved(page: Page, folder: Path) -> None:
    """Save the files of the frame, as the page offers it."""
    downloads: list[Path] = []

    def keep(download: object) -> None:
        path = folder / download.suggested_filename  # type: ignore[attr-defined]
        download.save_as(path)  # type: ignore[attr-defined]
        downloads.append(path)

    page.on("download", keep)
    page.locator("#ask-code").get_by_role("button", name="Save the frame").click()
    while len(downloads) < 2:
        page.wait_for_timeout(50)


def printed(code: str, way: str, folder: Path) -> str:
    command = ["bash", "-c", code] if way == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(code: str, way: str, folder: Path) -> str:
    told = printed(code, way, folder)
    return json.loads(told)["answer"] if way == "curl" else told.rstrip("\n")


@needs("curl")
@pytest.mark.parametrize("question", ["", QUESTION])
def test_pasted_code_gives_the_same_answer(open_page: Open, tmp_path: Path, question: str) -> None:
    page = open_page()
    first_room(page)
    if question:
        page.locator("#question").fill(question)
    page.locator("#method").select_option("cubist")
    page.locator("#advanced > summary").click()
    page.locator("#option-depth_weight").fill("0.3")
    page.locator("#field-max_new_tokens").fill("12")
    page.get_by_role("button", name="Ask", exact=True).click()
    expected = answered(page).replace("(the model gave an empty answer)", "")
    page.locator("#ask-code > summary").click()
    saved(page, tmp_path)
    for way in ("curl", "Python", "OpenAI client"):
        page.locator("#ask-code").get_by_role("button", name=way, exact=True).click()
        page.locator("#ask-code code", has_text=STARTS[way]).wait_for()
        code = page.locator("#ask-code code").evaluate("(node) => node.textContent")
        assert run(code, way, tmp_path).strip() == expected.strip(), code


@needs("curl")
def test_a_comparison_is_pasted_in_three_ways(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    first_room(page)
    page.locator("#advanced > summary").click()
    page.locator("#field-max_new_tokens").fill("3")
    page.get_by_role("button", name="Compare all methods").click()
    page.locator("#cancel-compare").wait_for(state="hidden")
    rows = page.locator("#compare-table tbody tr")
    expected = {row.locator("th").inner_text(): row.locator(".said").inner_text() for row in rows.all()}
    page.locator("#ask-code > summary").click()
    saved(page, tmp_path)
    page.locator("#compare-code > summary").click()
    for way in ("curl", "Python", "OpenAI client"):
        page.locator("#compare-code").get_by_role("button", name=way, exact=True).click()
        start = (
            "import json" if way == "Python" else "import base64" if way == "OpenAI client" else "curl -sS"
        )
        page.locator("#compare-code code", has_text=start).wait_for()
        code = page.locator("#compare-code code").evaluate("(node) => node.textContent")
        told = printed(code, way, tmp_path)
        if way == "curl":
            results = json.loads(told)["results"]
            found = {one["spec"]["method"]: one["answer"].strip() or "(empty)" for one in results}
        else:
            pairs = (line.partition(" ") for line in told.splitlines())
            found = {method: answer.strip() or "(empty)" for method, _, answer in pairs}
        assert found == expected, (way, code)


@needs("curl")
def test_the_overlay_of_a_script_is_that_of_the_page(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    first_room(page)
    with page.expect_response("**/vqa/overlay") as caught:
        page.get_by_role("button", name="Show the groups").click()
        page.locator("#merge-stage").wait_for()
    shown = caught.value.json()
    page.locator("#ask-code > summary").click()
    saved(page, tmp_path)
    page.locator("#merge-code > summary").click()
    page.locator("#merge-code code", has_text="curl").wait_for()
    code = page.locator("#merge-code code").evaluate("(node) => node.textContent")
    done = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    body = json.loads(done.stdout)
    assert body["merge"]["method"] in ("tosa", "tome") and body["tokens"] == shown["tokens"]
    if body["merge"] == shown["merge"]:
        assert body["views"] == shown["views"]
