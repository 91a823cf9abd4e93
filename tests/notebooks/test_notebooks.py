"""The notebooks: what is committed was run, pages say the same, and they run again (make test-notebooks)."""

from __future__ import annotations

import copy
import re

import pytest

from bench import notebooks
from tests.needs import needs

NAMES = notebooks.names()
MACHINE = re.compile(r"(?:/home/|/root/|/tmp/|/work/|/Users/|[A-Z]:\\\\)")


def test_there_is_one_for_each_reader() -> None:
    assert NAMES == ["researcher", "robot_builder"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_was_run(name: str) -> None:
    notebook = notebooks.read(name)
    assert notebook["metadata"]["executed"] == notebooks.digest(notebook), "run: make notebooks"
    numbers = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    kinds = {output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", ())}
    assert kinds <= {"execute_result"} | {"stream", "display_data"}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_its_notebook(name: str) -> None:
    page = notebooks.rendered(name, notebooks.read(name))
    assert (notebooks.PAGES / f"{name}.md").read_text() == page.text, "run: make notebooks"
    there = {path.name: path.read_bytes() for path in notebooks.PAGES.glob(f"{name}-*.png")}
    assert there == dict(page.pictures)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_names_no_machine(name: str) -> None:
    text = (notebooks.NOTEBOOKS / f"{name}.ipynb").read_text()
    assert len(text) < 500_000 and not MACHINE.search(text) and notebooks.ADDRESS in text
    assert MACHINE.search('File "/home/me/run.py"')


def test_a_changed_cell_is_noticed() -> None:
    notebook = copy.deepcopy(notebooks.read("researcher"))
    notebook["cells"][1]["source"] = ["print(1)"]
    assert notebooks.digest(notebook) != notebook["metadata"]["executed"]


@needs("notebooks")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_again_with_the_same_outputs(name: str) -> None:
    with notebooks.serving() as address:
        again = notebooks.executed(name, address)
    assert notebooks.outputs(again) == notebooks.outputs(notebooks.read(name))
