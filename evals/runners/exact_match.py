"""Whether a free answer is one of the reference answers, by the three rules in use for 3D questions.

exact: the strings are equal (ScanQA's score.py). cleaned: equal after both are cleaned as SQA3D's
eval_sqa3d_llm.py cleans. refined: or, cleaned and without spaces, one contains the other (EM-R of LEO, Huang
et al., ICML 2024).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal, get_args

import click

from evals.runners.items import Scores

Match = Literal["exact", "cleaned", "refined"]
MATCH_OPTIONS = (
    click.Option(
        ["--match"],
        type=click.Choice(get_args(Match)),
        help="Rule of the overall score; the report has all three.",
    ),
)

# fmt: off
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
WORDS = {str(number): word for number, word in enumerate(NUMBERS)} | {"23": "twenty-three", "none": "zero"}
SPELLINGS = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}


def clean(answer: str) -> str:
    """Write an answer as SQA3D's annotations are written, by its own rules in its own order.

    Lower case; no spaces at the ends, single spaces within; no sign but , ' - and :; annotators' misspellings
    put right; 0 to 20, 23 and none as words; no single digit at a word's end; no a, an, the before a word.
    """
    text = re.sub(" {2,}", " ", re.sub("^ +| +$", "", answer.lower()))
    text = re.sub(r"[^a-z0-9,'\s:-]", "", text)
    text = _replace_words(text, SPELLINGS)
    text = re.sub(r"\bo' +clock\b", "o'clock", text)
    text = _replace_words(text, WORDS)
    text = re.sub(r"\b([a-zA-Z]+)[0-9]\b", r"\1", text)
    for article in ("a", "an", "the"):
        text = re.sub(rf"\b{article}\b ([a-zA-Z]+)", r"\1", text)
    return re.sub(r"\bbackwards\b", "backward", text)


def is_exact(answer: str, references: Sequence[str]) -> bool:
    """Compare the strings unchanged."""
    return answer in references


def is_cleaned(answer: str, references: Sequence[str]) -> bool:
    """Compare after cleaning."""
    return clean(answer) in map(clean, references)


def is_refined(answer: str, references: Sequence[str]) -> bool:
    """Compare after cleaning; a non-empty substring matches, either way round."""
    given = _unspaced(clean(answer))
    known = [_unspaced(clean(reference)) for reference in references]
    part = any(given and reference and (given in reference or reference in given) for reference in known)
    return part or is_cleaned(answer, references)


MATCHES: Mapping[Match, Callable[[str, Sequence[str]], bool]] = {
    "exact": is_exact,
    "cleaned": is_cleaned,
    "refined": is_refined,
}


def match_scores(
    texts: Sequence[str], references: Sequence[Sequence[str]], types: Sequence[str], match: Match
) -> Scores:
    """Score answers by all three rules and by type, in percent; `match` says which is the overall score."""
    right = {
        name: [float(rule(*pair)) for pair in zip(texts, references, strict=True)]
        for name, rule in MATCHES.items()
    }
    by_type: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(types, right[match], strict=True):
        by_type[kind].append(value)
    table = {
        "match": match,
        **{f"em_{name}": percent(values) for name, values in right.items()},
        "by_type": {kind: {"questions": len(v), "em": percent(v)} for kind, v in sorted(by_type.items())},
    }
    return Scores(tuple(right[match]), 100 * fmean(right[match]), table)


def percent(values: Sequence[float]) -> float:
    """Return the mean of scores in [0, 1] as a percentage with four decimals."""
    return round(100 * fmean(values), 4)


def _replace_words(text: str, table: Mapping[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(table)})\b", lambda found: table[found[0]], text)


def _unspaced(text: str) -> str:
    return "".join(text.split())
