"""Hooks of mkdocs: the pages at the top of the repository join the site, and links to them lead there.

mkdocs loads this file by its path; it imports nothing of the project, so that the site builds quickly.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

TOP = {"CONTRIBUTING.md": "contributing.md", "DECISIONS.md": "decisions.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their places in the site."""
_MARKS = re.compile(r"^<!-- (?:not run|serves|tested with|table|end|answer|plan|vlmevalkit)\b.*?-->\n", re.M)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages at the top of the repository."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    for name, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at their places in the site, and take our comments out."""
    is_top = page.file.src_uri in TOP.values()
    up = "" if is_top else "../" * len(Path(page.file.src_uri).parts)
    if is_top:
        markdown = re.sub(r"\]\(docs/", "](", markdown)
    for name, place in TOP.items():
        markdown = re.sub(rf"\]\({re.escape(up)}{re.escape(name)}", f"]({up[3:]}{place}", markdown)
    return _MARKS.sub("", markdown)
