"""The documentation is true: a request gives the answer shown, tables say what results and code say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bench import tables
from service.app import create_app
from service.errors.table import CODES
from service.pipeline.response_models import VqaResponse
from service.settings import Settings
from tests.loopback import wait_for
from tosa import METHODS

ROOT = Path(__file__).parents[2]
ASK = (ROOT / "docs" / "ask.md").read_text()
DEPTH = (ROOT / "docs" / "depth.md").read_text()
METHODS_PAGE = (ROOT / "docs" / "methods.md").read_text()
MEASURED = ("request_id", "timings_ms")
RESULTS = sorted((ROOT / "bench" / "results").rglob("*.json"))
# Tables with numbers that are typed all the same, by their first words: limits that are set, not measured;
# counts that follow from a model's configuration; what Ray cost, measured once before results were kept.
TYPED = {
    "docs/operate.md": ["what"],
    "docs/evaluate.md": ["ratio in the release"],
    "docs/scale.md": ["from the command to the first answer"],
}


def _shown_answer() -> dict[str, Any]:
    found = re.search(r"<!-- answer -->\n```json\n(.*?)```", ASK, re.S)
    assert found
    return json.loads(found[1])


def _curl_parts(page: str, address: str) -> tuple[dict[str, str], dict[str, Path]]:
    """The fields and files of the first curl command of a page for an address."""
    found = re.findall(rf"curl -s \S+{address}(\s.*?)```", page, re.S)[0]
    parts = [part.strip('"') for part in re.findall(r'-F (\S+="[^"]*"|\S+)', found)]
    pairs = [part.split("=", 1) for part in parts]
    files = {name: ROOT / value[1:] for name, value in pairs if value.startswith("@")}
    return {name: value.strip('"') for name, value in pairs if not value.startswith("@")}, files


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings())) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield client


def _curl(client: TestClient, page: str, address: str = "/vqa") -> dict[str, Any]:
    fields, files = _curl_parts(page, address)
    sent = {name: path.read_bytes() for name, path in files.items()}
    response = client.post(address, data=fields, files=sent)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def answer(client: TestClient) -> dict[str, Any]:
    return _curl(client, ASK)


def test_the_request_without_depth_is_estimated(client: TestClient) -> None:
    answer = _curl(client, DEPTH)
    assert (answer["merge"]["method"], answer["depth"]["source"]) == ("tosa", "estimate")
    assert answer["depth"]["estimator"]["id"] == "room-depth-tiny" and answer["timings_ms"]["estimate"] > 0


def test_the_inspection_says_what_the_preset_says(client: TestClient) -> None:
    seen = _curl(client, DEPTH, "/depth/inspect")
    assert (seen["preset"], seen["unit"], seen["guessed"]) == ("scannet", "m", [])


def test_every_setting_and_error_code_is_described() -> None:
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert all(field.description for field in Settings.model_fields.values())
    assert all(f"`TOSA_VQA_{name.upper()}`" in settings for name in Settings.model_fields)
    codes = (ROOT / "docs" / "reference" / "errors.md").read_text()
    assert all(f"| `{code}` |" in codes for code in CODES)


def test_the_curl_command_gives_the_answer_that_is_shown(answer: dict[str, Any]) -> None:
    shown = _shown_answer()
    assert {k: v for k, v in answer.items() if k not in MEASURED} == {
        k: v for k, v in shown.items() if k not in MEASURED
    }
    assert answer["timings_ms"].keys() == shown["timings_ms"].keys()


def test_the_answer_shows_every_field_of_the_response() -> None:
    VqaResponse.model_validate(_shown_answer())
    assert set(_shown_answer()) == set(VqaResponse.model_fields) - {"confidence", "episode"}, "not asked for"


def test_every_method_has_its_row_and_its_page() -> None:
    for name, method in METHODS.items():
        assert f"`{name}`" in METHODS_PAGE
        if method.merges:
            page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
            assert f"<!-- table: defaults {name} -->" in page
            assert method.paper is None or f"https://arxiv.org/abs/{method.paper}" in page


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_tables_say_what_the_results_say(name: str) -> None:
    assert tables.is_fresh(ROOT / name), "run: python -m bench.tables"


def test_a_typed_number_is_noticed(tmp_path: Path) -> None:
    forged = tmp_path / "methods.md"
    forged.write_text(re.sub(r"(<!-- table: methods -->\n)", r"\1\n| none | 99.9 |\n", METHODS_PAGE))
    assert forged.read_text() != METHODS_PAGE
    assert not tables.is_fresh(forged)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text())
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", result["machine"]["commit"])
    assert result["machine"]["processor"] and result["machine"]["torch"]
    assert datetime.fromisoformat(result["date"]).tzinfo is not None


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_numbers_in_tables_come_from_results(name: str) -> None:
    assert typed_numbers((ROOT / name).read_text()) == TYPED.get(name, [])


def test_typed_numbers_are_noticed() -> None:
    typed = "| method | ms |\n| --- | --- |\n| none | 41.3 |\n"
    assert typed_numbers(typed) == ["method"]
    assert typed_numbers("| | |\n| tome | 0.5 % (1 to 2) |\n\n| tofu | 3 ms |") == ["tome", "tofu"]
    assert typed_numbers("| a port | 80 |\n") == []
    assert typed_numbers(f"<!-- table: rooms -->\n{typed}<!-- end -->") == []
    assert typed_numbers(f"```\n{typed}```\n") == []


def typed_numbers(text: str) -> list[str]:
    """Name, by the first cell that says something, the tables outside all marks with numbers that look
    measured: a decimal, or a unit of time, memory or share behind them."""
    text = re.sub(r"<!-- table: .*?<!-- end -->|^```.*?^```", "", text, flags=re.S | re.M)
    number = re.compile(r"[-+]?\d+(\.\d+( ?\w+| %)?|( %| ms| s| MiB| GiB))( \(.*\))?")
    found = []
    for shown in re.findall(r"(?:^\|.*\n?)+", text, re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
        if any(number.fullmatch(cell) for row in rows for cell in row[1:]):
            found.append(next(cell for row in rows for cell in row if cell and not set(cell) <= set("-:")))
    return found


@pytest.mark.parametrize("name", [*tables.DOCUMENTS, "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        assert not anchor or anchor in _anchors(page.read_text()), target


def _anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in headings}
