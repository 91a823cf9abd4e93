"""Read a data set's records into typed values, or report the first wrong entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from evals.runners.items import DatasetError

Kind = TypeVar("Kind")


def check_records(path: Path, found: Any, kind: type[Kind]) -> Kind:
    """Return what was read from `path` as `kind`. Raises DatasetError with the first wrong entry."""
    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise DatasetError(f"{path}, entry {where}: {first['msg']}{more}") from None


def read_json_lines(path: Path) -> list[Any]:
    """Read one JSON value per line; empty lines are skipped. Raises DatasetError."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise DatasetError(f"{path}, line {number} is not JSON: {error}") from None
    return found
