"""Paired significance: McNemar's test on the same questions, and Holm's correction for many tests.

McNemar takes questions as independent, which those about one frame are not quite: the bootstrap of
`evals.intervals` draws frames, and is shown beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

EXACT_BELOW = 25  # discordant pairs: below it the chi-square approximation is not good enough


def discordant(one: Sequence[bool], other: Sequence[bool]) -> tuple[int, int]:
    """Count the questions that only `one` got right, and those that only `other` did."""
    pairs = list(zip(one, other, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def mcnemar(only_one: int, only_other: int) -> float:
    """Give the two-sided p value of McNemar's test (Psychometrika 1947) from the discordant pairs.

    Exact (binomial) below 25 pairs, else chi-square with Edwards' continuity correction.
    """
    pairs = only_one + only_other
    if pairs < EXACT_BELOW:
        tail = sum(math.comb(pairs, wins) for wins in range(min(only_one, only_other) + 1))
        return min(1.0, 2 * tail / 2**pairs)
    chi_square = max(abs(only_one - only_other) - 1, 0) ** 2 / pairs
    return math.erfc(math.sqrt(chi_square / 2))  # upper tail, one degree of freedom


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of one family (Holm, Scand. J. Statist. 1979), in their order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
