"""The sentences that a refusal may hold, read from the source: what stands in them, and where values go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    "service/errors/table.py",
    "service/errors/translation.py",
    "service/request/bounds.py",
    "service/request/validation.py",
    "service/api/chat/output.py",
    "service/api/chat/request.py",
    "depth/errors.py",
    "depth/estimate.py",
    "tosa/spec.py",
    "tosa/counts.py",
    "tosa/plan.py",
    "tosa/schedule.py",
    "vlm/decoding.py",
    "vlm/grammar.py",
    "vlm/schema_bounds.py",
    "vlm/prompt.py",
    "vlm/sampling.py",
)
OPTION_SOURCES = ("tosa/methods/options.py", "tosa/methods/expedite.py")
VALUE = r"(?:[\w .,;:()'\[\]=+-]|<scale>)*"
FIELD_IN_FRONT = re.compile(r"^[\w.\[\]-]{1,120}: ")
LIMIT_BEHIND = re.compile(r" \(limit: [\d.e+-]+\)\.$")
FEWEST_LETTERS = 6  # of a template, so that none fits everything


def is_ours(message: str) -> bool:
    """Say whether a message is one of our sentences, with nothing but plain values in it."""
    bare = LIMIT_BEHIND.sub(".", FIELD_IN_FRONT.sub("", message))
    return any(pattern.fullmatch(one) for one in (message, bare) for pattern in PATTERNS)


def _patterns() -> Iterator[re.Pattern[str]]:
    for template in _templates(SOURCES):
        if template.endswith(".") and _letters(template) >= FEWEST_LETTERS:
            yield re.compile(_regex(template))
    for template in _templates(OPTION_SOURCES):  # "pitome: margin must be ..."
        if " must be " in template:
            yield re.compile(r"\w+: " + _regex(template) + r"\.")


def _templates(sources: tuple[str, ...]) -> Iterator[str]:
    for source in sources:
        tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
        inner = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
                yield node.value


def _letters(template: str) -> int:
    return sum(letter.isalpha() for letter in re.sub(r"\{\w*\}", "", template))


def _regex(template: str) -> str:
    return VALUE.join(map(re.escape, re.split(r"\{\w*\}", template)))


PATTERNS = tuple(_patterns())
