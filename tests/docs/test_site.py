"""The site builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import yaml
from mkdocs.commands import build
from mkdocs.config import load_config

from tests.docs.pages import ROOT

FOREIGN = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*stylesheet[^>]*href=["']?https?:|@import|url\(["']?https?:"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, heard = tmp_path_factory.mktemp("site"), _Heard(logging.WARNING)
    logging.getLogger("mkdocs").addHandler(heard)
    try:
        build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    finally:
        logging.getLogger("mkdocs").removeHandler(heard)
    assert heard.said == []
    return folder


class _Heard(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def test_every_page_of_the_repository_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert [str(page) for page in pages if not (site / page).is_file()] == []
    assert all((site / f"{name}.html").is_file() for name in ("contributing", "decisions", "changelog"))


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not FOREIGN.search(page.read_text()), page.name
    assert FOREIGN.search('<script src="https://cdn.example/x.js">')


def test_comments_of_the_pages_are_not_in_the_site(site: Path) -> None:
    assert not re.search(
        r"&lt;!-- (not run|table|serves)|<!-- (not run|serves|tested)", (site / "tour.html").read_text()
    )


def test_make_check_builds_strictly() -> None:
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()
    shown = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert shown["theme"]["font"] is False and shown["site_dir"] == "build/site"
