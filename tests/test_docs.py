"""The documentation is true: the request of the README gives its answer, and its tables are the results."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bench import tables
from service.app import create_app
from service.schemas import VqaResponse
from service.settings import Settings
from tosa import METHODS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MEASURED = ("request_id", "timings_ms")


def _shown_answer() -> dict[str, Any]:
    found = re.search(r"<!-- answer -->\n```json\n(.*?)```", README, re.S)
    assert found
    return json.loads(found[1])


def _curl_parts() -> tuple[dict[str, str], dict[str, Path]]:
    """The fields and files of the README's curl command."""
    found = re.search(r"curl -s \S+/vqa(.*?)```", README, re.S)
    assert found
    parts = [part.strip('"') for part in re.findall(r'-F (\S+="[^"]*"|\S+)', found[1])]
    pairs = [part.split("=", 1) for part in parts]
    files = {name: ROOT / value[1:] for name, value in pairs if value.startswith("@")}
    return {name: value.strip('"') for name, value in pairs if not value.startswith("@")}, files


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    fields, files = _curl_parts()
    with TestClient(create_app(Settings())) as client:
        for _ in range(600):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.1)
        sent = {name: path.read_bytes() for name, path in files.items()}
        response = client.post("/vqa", data=fields, files=sent)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_readmes_curl_gives_the_readmes_answer(answer: dict[str, Any]) -> None:
    shown = _shown_answer()
    assert {k: v for k, v in answer.items() if k not in MEASURED} == {
        k: v for k, v in shown.items() if k not in MEASURED
    }
    assert answer["timings_ms"].keys() == shown["timings_ms"].keys()


def test_the_readme_shows_every_field_of_the_response() -> None:
    VqaResponse.model_validate(_shown_answer())
    assert set(_shown_answer()) == set(VqaResponse.model_fields)


def test_every_method_has_its_row() -> None:
    for name in METHODS:
        assert f"| `{name}` |" in README


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_tables_say_what_the_results_say(name: str) -> None:
    assert tables.is_fresh(ROOT / name), "run: python -m bench.tables"


def test_a_typed_number_is_noticed(tmp_path: Path) -> None:
    forged = tmp_path / "README.md"
    forged.write_text(re.sub(r"(<!-- table: rooms -->\n)", r"\1\n| none | 99.9 |\n", README))
    assert not tables.is_fresh(forged)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
