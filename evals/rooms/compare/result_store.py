"""The results of a comparison so far, in a file of JSON lines, so that it can be stopped and resumed.

The first line describes the model and the questions; results of another model or split are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.rooms.compare.workers import ComparisonError


class ResultStore:
    """Results by name, each written to the file at once; an incomplete last line is dropped."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Open or create the file. Raises ComparisonError if it is unreadable or of another comparison."""
        self._path, self._results = path, dict[str, Any]()
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last is empty or incomplete
        if lines:
            self._require_same(_read(path, lines[0], 1), json.loads(json.dumps(about)))
            for number, line in enumerate(lines[1:], start=2):
                self._results |= _read(path, line, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines) or json.dumps(about) + "\n")

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def __getitem__(self, name: str) -> Any:
        return self._results[name]

    def append(self, name: str, result: Any) -> None:
        """Add a result, and write it to the file."""
        with self._path.open("a") as file:
            file.write(json.dumps({name: result}) + "\n")
        self._results[name] = json.loads(json.dumps(result))

    def _require_same(self, kept: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        other = [name for name in {**kept, **about} if kept.get(name) != about.get(name)]
        if other:
            what = ", ".join(f"{name} is {about.get(name)}, not {kept.get(name)}" for name in other)
            message = f"{self._path} holds findings about something else ({what})"
            raise ComparisonError(f"{message}: give another --kept, or begin anew with --fresh")


def _read(path: Path, line: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ComparisonError(f"{path}, line {number} cannot be read: delete it, or begin anew with --fresh")
    return found
