"""The JSON of the dense probe: means and paired intervals over scenes, by condition and over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.dense.probe import Scores
from evals.dense.settings import Setting
from evals.intervals import Scores as Values
from evals.intervals import interval, paired_interval, pool

MEASURES = ("shape", "distance")
Found = Mapping[Setting, Scores]
TOME, CONTROL = "tome", "shuffled"


def rows(found: Found, none: Scores) -> list[dict[str, Any]]:
    """Describe every setting at one ratio, and its differences from no merging, ToMe and its control.

    A difference is [mean, low, high]; the control, another scene's depth, is there for exact depth only.
    """
    return [_row(setting, scores, found, none) for setting, scores in found.items()]


def pooled(parts: Sequence[Scores]) -> Scores:
    """Put what was found of a scene under all conditions together: a scene is drawn as a whole."""
    return Scores(*(pool([getattr(part, measure) for part in parts]) for measure in MEASURES))


def measured(scores: Scores) -> dict[str, list[float]]:
    """Give both means, each with its 95 % interval."""
    values = {measure: getattr(scores, measure) for measure in MEASURES}
    return {measure: _rounded(_mean(each), *interval(each)) for measure, each in values.items()}


def _row(setting: Setting, scores: Scores, found: Found, none: Scores) -> dict[str, Any]:
    by_name = {one.name: each for one, each in found.items()}
    others = {"none": none, "tome": None if setting.name == TOME else by_name.get(TOME)}
    if setting.depth == "true":
        others["control"] = by_name.get(Setting(setting.spec, CONTROL).name)
    differences = {
        f"minus_{name}": {
            measure: _difference(getattr(scores, measure), getattr(other, measure)) for measure in MEASURES
        }
        for name, other in others.items()
        if other is not None
    }
    spec = setting.spec
    described = {
        "method": spec.method,
        "alpha": spec.alpha if setting.depth else None,
        "depth": setting.depth,
    }
    return {"name": setting.name} | described | measured(scores) | differences


def _difference(one: Values, other: Values) -> list[float]:
    return _rounded(_mean(one) - _mean(other), *paired_interval(one, other))


def _mean(values: Values) -> float:
    return sum(map(sum, values)) / sum(map(len, values))


def _rounded(*values: float) -> list[float]:
    return [round(value, 5) for value in values]
