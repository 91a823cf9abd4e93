"""Ask every item once and save each answer as it arrives, so that a run can be stopped and resumed.

The file of answers is JSON lines: first the settings and the data set, then one answer per line. An
incomplete last line, from a stopped process, is dropped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evals.runners.asking import Answer, Answerer, RunError
from evals.runners.items import Item, digest

MANY = 10
"""This many errors before the first answer mean that the settings are wrong, not the questions."""


def answers(items: Sequence[Item], answerer: Answerer, out: Path) -> dict[str, Answer]:
    """Return the answer to every item by id; those in `out` are not asked again, unless they were refused.

    Raises RunError if `out` holds answers to other questions, or of another model or setting; if the answerer
    is gone; or if everything is refused. DatasetError for a file that cannot be read.
    """
    header = {"settings": dict(answerer.settings), "dataset": digest(items)}
    known = _resume(out, json.loads(json.dumps(header)))
    known = {item.id: known[item.id] for item in items if item.id in known}
    todo = [item for item in items if item.id not in known]
    refused = 0
    with (
        out.open("ab") as file,
        tqdm(total=len(items), initial=len(known), unit="question") as bar,
        _ended(answerer.answer(todo)) as replies,
    ):
        for answer in replies:
            file.write(json.dumps(asdict(answer)).encode() + b"\n")
            file.flush()
            known[answer.id] = answer
            bar.update()
            refused = refused + 1 if answer.code is not None else -len(items)
            if refused >= MANY:
                raise RunError(
                    f"the first {refused} questions were all refused, the last so: {answer.refusal}"
                )
    return known


def read_answers(path: Path) -> tuple[dict[str, Any], dict[str, Answer]]:
    """Read a file of answers: its first line, and the last answer to each id. Raises RunError."""
    lines = path.read_bytes().split(b"\n")[:-1]  # the last is empty or incomplete
    head, known = _line(path, lines, 0), {}
    for number in range(1, len(lines)):
        found = _line(path, lines, number)
        try:
            answer = Answer(**found)
        except TypeError:
            raise RunError(f"{path}, line {number + 1} is no answer: delete the line or the file") from None
        known[answer.id] = answer
    return head, known


@contextmanager
def _ended(replies: Iterator[Answer]) -> Iterator[Iterator[Answer]]:
    """Cancel requests in flight when the caller stops early."""
    try:
        yield replies
    finally:
        if isinstance(replies, Generator):
            replies.close()


def _line(path: Path, lines: Sequence[bytes], number: int) -> dict[str, Any]:
    try:
        found = json.loads(lines[number], object_pairs_hook=_small)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(
            f"{path}, line {number + 1} cannot be read: delete the line, or the file to begin anew"
        )
    return found


def _small(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Intern the keys: VQAv2 has 214,354 answers with some forty keys each."""
    return {sys.intern(name): value for name, value in pairs}


def _resume(out: Path, header: Mapping[str, Any]) -> dict[str, Answer]:
    """Return the saved answers; create the file if missing, and remove an incomplete last line."""
    whole = 0
    if out.exists():
        whole = out.read_bytes().rfind(b"\n") + 1
        with out.open("r+b") as file:
            file.truncate(whole)
    if not whole:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(header) + "\n")
        return {}
    head, known = read_answers(out)
    if head != header:
        other = ", ".join(name for name in _differences(head, header))
        raise RunError(f"{out} holds answers to other questions or settings ({other}): choose another --out")
    return {id_: answer for id_, answer in known.items() if answer.code is None}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name what differs, one by one."""
    flat = [{**side.get("settings", {}), "dataset": side.get("dataset")} for side in (one, other)]
    names = dict.fromkeys((*flat[0], *flat[1]))
    return [name for name in names if flat[0].get(name) != flat[1].get(name)]
