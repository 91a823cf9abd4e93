"""Every test that a page names as a proof is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import NAMES, ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def missing(text: str) -> list[str]:
    """Return the tests that a text names and that do not exist."""
    found = []
    for file, name in NAMED.findall(text):
        path = ROOT / file
        functions = ast.parse(path.read_text()).body if path.is_file() else []
        if name not in {one.name for one in functions if isinstance(one, ast.FunctionDef)}:
            found.append(f"{file}::{name}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_that_a_page_names_are_there(name: str) -> None:
    assert missing((ROOT / name).read_text()) == []


def test_a_test_that_is_not_there_is_found() -> None:
    real = "`tests/docs/test_named_tests.py::test_a_test_that_is_not_there_is_found`"
    assert missing(f"{real} `tests/none.py::test_x` `tests/docs/test_named_tests.py::missing_one`") == [
        "tests/none.py::test_x",
        "tests/docs/test_named_tests.py::missing_one",
    ]


def test_the_page_of_clients_names_a_test_in_every_row() -> None:
    text = (ROOT / "docs/clients.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert len([row for row in rows if not NAMED.search(row) and not row.endswith("| test |")]) == 0
    assert len(rows) > 25
