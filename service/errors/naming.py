"""A refusal's sentence names its field and its limit, because most clients show nothing but the sentence."""

from __future__ import annotations

import re

OF_AN_OPTION = re.compile(r"\w+: \w+ must be ")
"""Sentences about one of the options of a method, which they name."""


def named(sentence: str, field: str | None, limit: float | None) -> str:
    """Put the field in front of a sentence that does not name it, and a limit that it lacks at its end."""
    if field is not None and not names_field(sentence, field):
        sentence = f"{field}: {sentence}"
    if limit is not None and not names_limit(sentence, limit):
        sentence = f"{sentence.removesuffix('.')} (limit: {_number(limit)})."
    return sentence


def names_field(sentence: str, field: str) -> bool:
    """Return whether a sentence names a field: one deep inside a body in full, any other by its last name."""
    if "[" in field or field.count(".") > 1:
        return field in sentence
    if field.endswith("options") and OF_AN_OPTION.match(sentence):
        return True
    last = field.rpartition(".")[2].removesuffix("s")  # "options" is named by "option"
    return re.search(rf"\b{re.escape(last)}", sentence, re.IGNORECASE) is not None


def names_limit(sentence: str, limit: float) -> bool:
    """Return whether a sentence contains a limit, as a number of its own."""
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?!\w|\.\d)", sentence) for one in _spellings(limit))


def _spellings(limit: float) -> set[str]:
    return {str(limit), _number(limit), f"{limit:,}"}


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
