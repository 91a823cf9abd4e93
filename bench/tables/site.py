"""Hooks of mkdocs: the pages at the top of the repository join the site, and links to them lead there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tables.markdown import ROOT

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

TOP = {"CONTRIBUTING.md": "contributing.md", "DECISIONS.md": "decisions.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their places in the site."""
_ATTENTION = re.compile(
    r"^<!-- (?:not run|serves|tested with|table|end|answer|plan|vlmevalkit)\b.*?-->\n", re.M
)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages at the top of the repository."""
    from mkdocs.structure.files import File

    for name, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at their places in the site, and take our comments out."""
    if page.file.src_uri in TOP.values():
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        up = ""
    else:
        up = "../" * (len(Path(page.file.src_uri).parts))
    for name, place in TOP.items():
        markdown = re.sub(rf"\]\({re.escape(up)}{re.escape(name)}", f"]({up[3:]}{place}", markdown)
    return _ATTENTION.sub("", markdown)
