"""Questions of a benchmark and their scores, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from service.roomqa.condition import Condition

if TYPE_CHECKING:
    from evals.runners.geometry import Geometry

Truth = TypeVar("Truth")


class DatasetError(Exception):
    """Bad or missing data; the message names the file, the line or entry, and what was expected."""


@dataclass(frozen=True)
class Item:
    """One question as it is sent to the service. Files are read only when it is sent.

    id: unique in the dataset. question: the prompt as sent, with the protocol's suffix. images: frames in
    order. depths: none, or one per image; depth_preset says what their numbers are. condition: what spoils
    the images when they are sent. geometry: where they were taken, which is sent where tokens merge across
    them.
    """

    id: str
    question: str
    images: tuple[Path, ...]
    depths: tuple[Path, ...] = ()
    depth_preset: str | None = None
    max_new_tokens: int = 16
    condition: Condition | None = None
    geometry: Geometry | None = None


@dataclass(frozen=True)
class Entry(Generic[Truth]):
    """One question with its reference answers, in the form that the benchmark's score reads."""

    item: Item
    truth: Truth


@dataclass(frozen=True)
class Scores:
    """The scores that a benchmark gives its answers.

    values: the score of each entry in [0, 1], in their order, None for one without a score. overall: the
    benchmark's own number, in its own unit, None if nothing is scored. table: the other official numbers,
    ready for JSON.
    """

    values: tuple[float | None, ...]
    overall: float | None
    table: Mapping[str, Any] = field(default_factory=dict)


def check_items(items: Sequence[Item]) -> None:
    """Refuse items that no run could answer: none at all, duplicate ids, or missing files.

    Raises DatasetError.
    """
    if not items:
        raise DatasetError("there is no question in this data set")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DatasetError(f"question {item.id} comes twice: ids must be unique")
        seen.add(item.id)
        if len(item.depths) not in (0, len(item.images)):
            raise DatasetError(f"question {item.id} has {len(item.images)} images, {len(item.depths)} depths")
    check_files(path for item in items for path in (*item.images, *item.depths))


def check_files(paths: Iterable[Path]) -> None:
    """Check that each file exists. Raises DatasetError with how many are missing and which is the first."""
    wanted = list(dict.fromkeys(paths))
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise DatasetError(f"{len(missing)} of {len(wanted)} files are missing, the first is {missing[0]}")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DatasetError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from None


def read_file(path: Path) -> bytes:
    """Read an image or a depth map. Raises DatasetError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None


def digest(items: Iterable[Item]) -> str:
    """Hash the items in order; of a path, only file and folder name count, so that data may be moved."""
    hashed = hashlib.sha256()
    for item in items:
        files = [["/".join(path.parts[-2:]) for path in paths] for paths in (item.images, item.depths)]
        asked: list[Any] = [item.id, item.question, *files, item.depth_preset, item.max_new_tokens]
        asked += [] if item.condition is None else [item.condition.label]
        hashed.update(json.dumps(asked).encode() + b"\n")
    return hashed.hexdigest()
