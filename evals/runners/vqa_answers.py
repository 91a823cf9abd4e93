"""VQAv2's accuracy of one answer against ten human answers.

Source: the facts of vqaEval.py of GT-Vision-Lab/VQA, and visualqa.org/evaluation. Its authors say why answers
are left unchanged where all annotators agree: processing could spoil text read from the image (issue 14).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

ENOUGH = 3
"""Number of other annotators that must agree for full marks."""
SIGNS = ';/[]"{}()=+\\_-><@`,?!'
"""Apostrophe and colon are not among them: girl's, 2:50 pm."""
MAX_PERIODS = 32
"""The script passes re.UNICODE, which is 32, where the number of replacements stands."""
ARTICLES = frozenset({"a", "an", "the"})
_DIGITS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
NUMBERS: Mapping[str, str] = {
    word: str(n) for word, n in {**_DIGITS, "nine": 9, "ten": 10, "none": 0}.items()
}
_CONTRACTED = (
    "'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't "
    "hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am "
    "might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've "
    "should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've "
    "someone'll someone's something'd something'd've something'll that's there'd there'd've there're "
    "there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's "
    "what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've "
)
"""A word that lacks one apostrophe of one of these gets it: couldn'tve and couldnt've, but not couldntve."""


def soft_accuracy(given: str, annotated: Sequence[str]) -> float:
    """Average min(1, matches / 3) over leaving each annotator out; process answers where these differ."""
    given, known = on_one_line(given), [on_one_line(answer) for answer in annotated]
    if len(set(known)) > 1:
        given, known = processed(given), [processed(answer) for answer in known]
    matches = known.count(given)
    marks = [min(1.0, (matches - (answer == given)) / ENOUGH) for answer in known]
    return sum(marks) / len(marks)


def on_one_line(answer: str) -> str:
    """Replace line ends and tabs by spaces, and strip."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def processed(answer: str) -> str:
    """Drop punctuation, write lower case and digits, drop articles, set missing apostrophes."""
    words = [NUMBERS.get(word, word) for word in without_punctuation(answer).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(answer: str) -> str:
    """Drop signs beside a space, replace the others by spaces; drop periods, but not before a digit.

    With a comma between two digits anywhere, as in 100,978, all signs are dropped.
    """
    has_thousands = re.search(r"\d,\d", answer) is not None
    left = answer
    for sign in SIGNS:
        is_loose = has_thousands or f"{sign} " in answer or f" {sign}" in answer
        left = left.replace(sign, "" if is_loose else " ")
    return re.sub(r"\.(?!\d)", "", left, count=MAX_PERIODS)


def _lacking_one(word: str) -> Iterator[str]:
    return (word[:at] + word[at + 1 :] for at, sign in enumerate(word) if sign == "'")


CONTRACTIONS: Mapping[str, str] = {
    **{lacking: word for word in _CONTRACTED.split() for lacking in _lacking_one(word)},
    "somebody'd": "somebodyd",  # reversed, as in the script
}
