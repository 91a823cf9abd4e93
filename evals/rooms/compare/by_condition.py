"""The same variants under several conditions: differences from ToMe in each of them, and in all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.intervals import pool
from evals.rooms.compare.evaluator import VariantResult
from evals.rooms.compare.report import Right, difference, rights, variant_rows, with_interval
from evals.rooms.compare.variants import Planned, Variant
from evals.rooms.splits import Example

RightByCondition = Mapping[str, Mapping[Variant, Right]]


def by_condition(
    split: Sequence[Example], planned: Planned, results: Mapping[str, Mapping[Variant, VariantResult]]
) -> dict[str, Any]:
    """Describe every variant in each condition, over all of them, and over the third that spoils most."""
    right = {
        label: {variant: rights(split, result) for variant, result in each.items()}
        for label, each in results.items()
    }
    rows = {label: variant_rows(split, planned, results[label], each, {}) for label, each in right.items()}
    variants = list(planned.plans)
    worst = worst_third(right)
    return {
        "conditions": rows,
        "alone": {label: together(variants, {label: each}) for label, each in right.items()},
        "together": together(variants, right),
        "worst_third": {
            "conditions": worst,
            "together": together(variants, {one: right[one] for one in worst}),
        },
    }


def worst_third(right: RightByCondition) -> list[str]:
    """Name the third of the conditions, rounded up, where the model without merging is right least often."""
    share = {
        label: with_interval(next(scores for variant, scores in each.items() if variant.name == "none"))[0]
        for label, each in right.items()
    }
    return sorted(share, key=lambda label: share[label])[: -(-len(share) // 3)]


def together(variants: Sequence[Variant], right: RightByCondition) -> list[dict[str, Any]]:
    """Give every variant's accuracy over all conditions, and its difference from others at equal tokens.

    A frame's questions under all conditions are drawn together, for they are about one scene. "minus_tome",
    "minus_none" and, for depth, "minus_control" (another frame's depth) are None where there is no other.
    """
    pooled = {variant: pool([each[variant] for each in right.values()]) for variant in variants}
    by_name = {variant.name: scores for variant, scores in pooled.items()}
    rows = []
    for variant, scores in pooled.items():
        others = {name: by_name.get(other or "") for name, other in _others(variant, variants).items()}
        differences = {
            f"minus_{name}": None if other is None else difference(scores, other)
            for name, other in others.items()
        }
        rows.append({"name": variant.name, "accuracy": with_interval(scores)} | differences)
    return rows


def _others(variant: Variant, variants: Sequence[Variant]) -> dict[str, str | None]:
    spec = variant.spec
    if spec.keep_ratio is None:
        return {"none": None, "tome": None, "control": None}
    alike = [
        one
        for one in variants
        if one.spec.keep_ratio == spec.keep_ratio and one.spec.schedule == spec.schedule and one != variant
    ]
    tome = next((one.name for one in alike if one.spec.method == "tome"), None)
    control = next((one.name for one in alike if one.spec == spec and one.depth == "shuffled"), None)
    return {
        "none": "none",
        "tome": tome,
        "control": None if variant.depth in (None, "shuffled") else control,
    }
