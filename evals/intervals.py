"""Bootstrap intervals over frames: questions about one frame are correlated, so they are drawn together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
Scores = Sequence[Sequence[float]]  # the scores of each frame's questions


def pool(parts: Sequence[Scores]) -> list[list[float]]:
    """Put the scores of each frame under several conditions together, so that it is drawn as a whole."""
    return [[score for scores in frame for score in scores] for frame in zip(*parts, strict=True)]


def interval(scores: Scores, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of the mean score, frames drawn with replacement.

    Raises ValueError when there is nothing to score.
    """
    totals = np.array([float(np.sum(frame)) for frame in scores])
    counts = np.array([len(frame) for frame in scores])
    if counts.sum() == 0:
        raise ValueError("no scores")
    drawn = _drawn(len(scores), seed)
    drawn_counts = drawn @ counts
    means = (drawn @ totals)[drawn_counts > 0] / drawn_counts[drawn_counts > 0]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_interval(better: Scores, worse: Scores, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference of two paired sets of scores."""
    differences = [
        [float(a) - float(b) for a, b in zip(one, other, strict=True)]
        for one, other in zip(better, worse, strict=True)
    ]
    return interval(differences, seed=seed)


@lru_cache(maxsize=4)
def _drawn(frames: int, seed: int) -> NDArray[np.int64]:
    """Count how often each draw contains each frame: [DRAWS, frames]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(frames, np.full(frames, 1 / frames), size=DRAWS)
