"""Whole numbers in English words, as a prompt may have them."""

from __future__ import annotations

SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """Spell a number below a thousand: 64 as "sixty-four", 120 as "one hundred and twenty"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        ten, rest = divmod(number, 10)
        return TENS[ten - 2] + (f"-{SMALL[rest]}" if rest else "")
    hundred, rest = divmod(number, 100)
    return f"{SMALL[hundred]} hundred" + (f" and {in_words(rest)}" if rest else "")
