"""VSI-Bench's scores: exact letters, mean relative accuracy of numbers, and the mean of tasks.

Source: Yang et al., Thinking in Space, CVPR 2025; as lmms_eval/tasks/vsibench/utils.py of
vision-x-nyu/thinking-in-space does it, which is what published numbers come from.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DIRECTION = "object_rel_direction"
LETTER_TASKS: Mapping[str, tuple[str, ...]] = {
    DIRECTION: (f"{DIRECTION}_easy", f"{DIRECTION}_medium", f"{DIRECTION}_hard"),
    "object_rel_distance": ("object_rel_distance",),
    "route_planning": ("route_planning",),
    "obj_appearance_order": ("obj_appearance_order",),
}
NUMBER_TYPES = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
LETTER_TYPES = tuple(kind for kinds in LETTER_TASKS.values() for kind in kinds)
TASKS: Mapping[str, tuple[str, ...]] = {**LETTER_TASKS, **{kind: (kind,) for kind in NUMBER_TYPES}}
"""The eight tasks, each with its types of question; relative direction has three, which weigh the same."""
TYPES = (*LETTER_TYPES, *NUMBER_TYPES)
CONFIDENCES = np.linspace(0.5, 0.95, 10)
DRAWS = 4000

Floats = NDArray[np.float64]


def first_word(answer: str) -> str:
    """Return the part of an answer that is compared: up to the first space, without trailing periods."""
    return answer.strip().split(" ")[0].rstrip(".").strip()


def letter_score(answer: str, truth: str) -> float:
    """Return 1 if the first word is the letter, in capitals or not, else 0."""
    return float(first_word(answer).lower() == truth.lower())


def number_score(answer: str, truth: float) -> float:
    """Return the mean relative accuracy of a number, in [0, 1]; 0 if the first word is no number.

    MRA = mean over c in {.5, .55, ..., .95} of [ |answer - truth| / truth <= 1 - c ], with <= as the official
    code has it, where the paper writes <.
    """
    try:
        given = float(first_word(answer))
    except ValueError:
        return 0.0
    return float(np.mean(abs(given - truth) / truth <= 1 - CONFIDENCES))


def task_means(types: Sequence[str], values: Sequence[float]) -> tuple[dict[str, float], float]:
    """Return the mean score of every task that was asked, and the mean of those, the overall, in [0, 1]."""
    sums, counts = _totals([(kind, value, None) for kind, value in zip(types, values, strict=True)])
    means, there = _tasks(sums[0], counts[0])
    by_task = {
        task: float(mean) for task, mean, is_there in zip(TASKS, means, there, strict=True) if is_there
    }
    return by_task, float(_mean(means, there))


def overall_interval(
    types: Sequence[str], values: Sequence[float], scenes: Sequence[Hashable], seed: int = 0
) -> tuple[float, float]:
    """Give the 95 % bootstrap interval of the overall score, scenes drawn with replacement."""
    sums, counts = _totals(list(zip(types, values, scenes, strict=True)))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    low, high = np.quantile(_mean(*_tasks(drawn @ sums, drawn @ counts)), [0.025, 0.975])
    return float(low), float(high)


def _totals(scored: Sequence[tuple[str, float, Hashable]]) -> tuple[Floats, Floats]:
    """Return sums and counts [scenes, types]."""
    scenes = {scene: row for row, scene in enumerate(dict.fromkeys(scene for _, _, scene in scored))}
    sums, counts = np.zeros((len(scenes), len(TYPES))), np.zeros((len(scenes), len(TYPES)))
    for kind, value, scene in scored:
        place = scenes[scene], TYPES.index(kind)
        sums[place] += value
        counts[place] += 1
    return sums, counts


def _tasks(sums: Floats, counts: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the means of the tasks [..., 8], and which were asked, of sums and counts [..., types]."""
    means, there = sums / np.maximum(counts, 1), counts > 0
    columns = [[TYPES.index(kind) for kind in kinds] for kinds in TASKS.values()]
    by_task = [_mean(means[..., these], there[..., these]) for these in columns]
    return np.stack(by_task, -1), np.stack([there[..., these].any(-1) for these in columns], -1)


def _mean(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """Return the mean of the present values over the last axis, 0 if there are none."""
    return (values * there).sum(-1) / np.maximum(there.sum(-1), 1)
