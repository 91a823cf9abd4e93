"""The pages of the documentation and the fenced blocks in them, with what the comment above a block says.

`<!-- not run: REASON -->`: the commands are checked, and not run. `<!-- serves -->`: this block starts the
server of the tests. `<!-- tested with NEW for OLD: REASON -->`: the block runs with one text replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "DECISIONS.md",
    "training/README.md",
    "training/gpu-queue.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
LANGUAGES = ("sh", "python", "json", "promql", "text", "yaml")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.S | re.M)
COMMENT = re.compile(r"<!-- (?P<text>[^>]*?) -->\s*\Z")
REPLACED = re.compile(r"tested with (?P<new>\S+) for (?P<old>\S+): .+")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language and text, and the comment right above it."""

    page: str
    line: int
    language: str
    text: str
    comment: str

    @property
    def reason_not_to_run(self) -> str | None:
        """Return why the block is not run, or None if it is."""
        return self.comment.removeprefix("not run: ") if self.comment.startswith("not run: ") else None

    @property
    def serves(self) -> bool:
        """Say whether the block starts the server that the other blocks ask."""
        return self.comment == "serves"

    @property
    def as_tested(self) -> str:
        """Return the text that a test runs."""
        found = REPLACED.fullmatch(self.comment)
        if found is None:
            return self.text
        assert found["old"] in self.text, f"{self.page}:{self.line}: there is no {found['old']}"
        return self.text.replace(found["old"], found["new"])


def blocks(name: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return list(blocks_of(name, (ROOT / name).read_text()))


def blocks_of(name: str, text: str) -> Iterator[Block]:
    """Find the fenced blocks of a text."""
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        comment = COMMENT.search(before)
        indent = re.compile(f"^{found['indent']}", re.M)
        yield Block(
            page=name,
            line=before.count("\n") + 1,
            language=found["language"],
            text=indent.sub("", found["text"]),
            comment=comment["text"] if comment and "\n\n" not in comment[0] else "",
        )


def commands(name: str) -> list[Block]:
    """Return the blocks of a page that a reader is meant to run."""
    return [block for block in blocks(name) if block.language in ("sh", "python")]
