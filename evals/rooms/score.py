"""Score answers to RoomQA questions: normalised exact match, by type, and blind guesses."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from service.roomqa.questions import Question

EVEN_ODDS = ("left/right", "above/below", "nearer/farther", "size", "existence", "free path", "nearer now")


def normalise(answer: str) -> str:
    """Lower case, no punctuation, no article, single spaces."""
    words = re.sub(r"[^\w. ]|\.(?!\d)", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def is_right(answer: str, truth: str) -> bool:
    return normalise(answer) == normalise(truth)


def accuracy_by_type(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Share of right answers for every type, and `overall`."""
    right: dict[str, list[bool]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        right[question.type].append(is_right(answer, question.answer))
    everything = [value for values in right.values() for value in values]
    return {kind: sum(values) / len(values) for kind, values in sorted(right.items())} | {
        "overall": sum(everything) / len(everything)
    }


def blind_guess(questions: Sequence[Question]) -> dict[str, float]:
    """The score without looking: the most frequent answer of each type, or even odds between two."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        answers[question.type][question.answer] += 1
    best = {}
    for kind, counter in sorted(answers.items()):
        commonest = counter.most_common(1)[0][1] / counter.total()
        best[kind] = max(commonest, 0.5) if kind in EVEN_ODDS else commonest
    weights = {kind: counter.total() for kind, counter in answers.items()}
    overall = sum(best[kind] * weights[kind] for kind in best) / sum(weights.values())
    return best | {"overall": overall}
