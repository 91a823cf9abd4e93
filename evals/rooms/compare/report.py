"""The JSON of a comparison: accuracy with intervals, paired tests, ablations and the Pareto front.

Everything is computed from one bit per question, right or wrong, which the JSON contains as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.intervals import Scores, interval, paired_interval
from evals.rooms.compare.evaluator import VariantResult
from evals.rooms.compare.variants import Ablation, Planned, Variant, changed, with_schedule, work
from evals.rooms.score import is_right
from evals.rooms.splits import Example
from evals.significance import discordant, holm, mcnemar
from tosa import MergePlan

Right = list[list[bool]]  # a list per frame
TOSA = ("tosa", "true")


def rights(split: Sequence[Example], result: VariantResult) -> Right:
    """Mark every answer."""
    return [
        [
            is_right(answer, question.answer)
            for answer, question in zip(answers, example.questions, strict=True)
        ]
        for answers, example in zip(result.answers, split, strict=True)
    ]


def question_types(split: Sequence[Example]) -> dict[str, Any]:
    """Give the type and the frame of each question, so that the bits of a variant can be read."""
    types = sorted({question.type for example in split for question in example.questions})
    return {
        "types": types,
        "type_of_question": [
            types.index(question.type) for example in split for question in example.questions
        ],
        "questions_of_frame": [len(example.questions) for example in split],
    }


def variant_rows(
    split: Sequence[Example],
    planned: Planned,
    results: Mapping[Variant, VariantResult],
    right: Mapping[Variant, Right],
    timed: Mapping[tuple[Any, ...], dict[str, float]],
) -> list[dict[str, Any]]:
    """Describe every variant that was evaluated."""
    return [
        _described(variant, plan)
        | {
            "accuracy": by_type(split, right[variant]),
            "purity": with_interval([[value] for value in results[variant].purity]),
            "right": to_hex(right[variant]),
            "same_as": planned.same_as[variant].name if variant in planned.same_as else None,
        }
        | timed.get(work(plan), {})
        for variant, plan in planned.plans.items()
    ]


def _described(variant: Variant, plan: MergePlan) -> dict[str, Any]:
    return {
        "name": variant.name,
        "method": plan.method,
        "keep_ratio": variant.spec.keep_ratio or 1.0,
        "schedule": variant.spec.schedule,
        "depth": variant.depth,
        "changed": changed(variant.spec),
        "tokens_in": plan.tokens_in,
        "tokens_out": plan.tokens_out,
        "tokens_per_layer": list(plan.counts),
        "vit_flops_ratio": round(plan.flops_ratio, 4),
    }


def refused_rows(planned: Planned) -> list[dict[str, Any]]:
    """List the variants that a method refuses, with the reason."""
    return [{"name": variant.name, "reason": reason} for variant, reason in planned.refused.items()]


def by_type(split: Sequence[Example], right: Right) -> dict[str, list[float]]:
    """Return the accuracy with its 95 % interval for every type of question, and overall."""
    kinds = sorted({question.type for example in split for question in example.questions})
    found = {kind: with_interval(_only(split, right, kind)) for kind in kinds}
    return found | {"overall": with_interval(right)}


def _only(split: Sequence[Example], right: Right, kind: str) -> Scores:
    return [
        [mark for mark, question in zip(marks, example.questions, strict=True) if question.type == kind]
        for marks, example in zip(right, split, strict=True)
    ]


def paired_tests(variants: Sequence[Variant], right: Mapping[Variant, Right]) -> dict[str, Any]:
    """Test pairs of variants on the same questions, in three families; Holm's correction applies within each.

    "against tome": every method minus ToMe of the same ratio and schedule. "tosa against": ToSA with true
    depth minus every other. "decreasing": every method minus itself with the constant schedule.
    """
    pairs = [(one, other) for one in variants for other in variants if one != other]
    alike = [(one, other) for one, other in pairs if _budget(one) == _budget(other)]
    families = {
        "against tome": [(one, other) for one, other in alike if other.spec.method == "tome"],
        "tosa against": [(one, other) for one, other in alike if (one.spec.method, one.depth) == TOSA],
        "decreasing": [
            (one, other)
            for one, other in pairs
            if one.spec.schedule == "decreasing" and other == with_schedule(one, "constant")
        ],
    }
    return {name: _family(family, right) for name, family in families.items()}


def _budget(variant: Variant) -> tuple[Any, Any]:
    return variant.spec.keep_ratio, variant.spec.schedule


def _family(pairs: Sequence[tuple[Variant, Variant]], right: Mapping[Variant, Right]) -> list[dict[str, Any]]:
    rows = [_test(one, other, right) for one, other in pairs]
    adjusted = holm([row["p"] for row in rows])
    return [row | {"p_holm": round(p, 6)} for row, p in zip(rows, adjusted, strict=True)]


def _test(one: Variant, other: Variant, right: Mapping[Variant, Right]) -> dict[str, Any]:
    wins, losses = discordant(_flat(right[one]), _flat(right[other]))
    return {
        "setting": one.name,
        "other": other.name,
        "only_setting_right": wins,
        "only_other_right": losses,
        "difference": difference(right[one], right[other]),
        "p": round(mcnemar(wins, losses), 6),
    }


def pooled(variants: Sequence[Variant], right: Mapping[Variant, Right]) -> list[dict[str, Any]]:
    """Average every method and schedule over the ratios, and compare the averages.

    "minus_constant": minus the same method with the constant schedule, "minus_tome": minus ToMe with the same
    schedule, each over the ratios that both have, None where there is nothing to compare.
    """
    groups: dict[tuple[str, str | None, str | float], dict[float, Right]] = {}
    for variant in variants:
        spec = variant.spec
        if spec.keep_ratio is not None:
            key = (spec.method, variant.depth, spec.schedule)
            groups.setdefault(key, {})[spec.keep_ratio] = right[variant]
    return [
        {
            "method": key[0],
            "depth": key[1],
            "schedule": key[2],
            "keep_ratios": sorted(group, reverse=True),
            "accuracy": with_interval(_mean(list(group.values()))),
            "minus_constant": _pooled_difference(group, groups.get((key[0], key[1], "constant"), {})),
            "minus_tome": _pooled_difference(group, groups.get(("tome", None, key[2]), {})),
        }
        for key, group in groups.items()
    ]


def _pooled_difference(one: Mapping[float, Right], other: Mapping[float, Right]) -> list[float] | None:
    both = [keep for keep in one if keep in other]
    if not both or one is other:
        return None
    return difference(_mean([one[keep] for keep in both]), _mean([other[keep] for keep in both]))


def _mean(rights: Sequence[Right]) -> list[list[float]]:
    """Average over variants, question by question."""
    return [
        [sum(marks) / len(rights) for marks in zip(*frames, strict=True)]
        for frames in zip(*rights, strict=True)
    ]


def ablation_rows(ablations: Sequence[Ablation], right: Mapping[Variant, Right]) -> list[dict[str, Any]]:
    """Compare every change with the shipped variant, and with the same change under another frame's depth."""
    return [_ablated(one, right) for one in ablations if one.variant in right]


def _ablated(one: Ablation, right: Mapping[Variant, Right]) -> dict[str, Any]:
    wins, losses = discordant(_flat(right[one.variant]), _flat(right[one.shipped]))
    return {
        "method": one.variant.spec.method,
        "keep_ratio": one.variant.spec.keep_ratio,
        "factor": one.factor,
        "value": one.value,
        "setting": one.variant.name,
        "shipped": one.shipped.name,
        "difference": difference(right[one.variant], right[one.shipped]),
        "p": round(mcnemar(wins, losses), 6),
        "control": one.control.name if one.control else None,
        "minus_control": difference(right[one.variant], right[one.control]) if one.control else None,
    }


def pareto(rows: Sequence[Mapping[str, Any]], depth_ms: Mapping[str, float]) -> list[str]:
    """Name the variants that no other beats in both speed and accuracy, fastest first."""
    timed = [(seen_ms(row, depth_ms), -row["accuracy"]["overall"][0], row["name"]) for row in rows]
    front: list[tuple[float, float, str]] = []
    for point in sorted(timed):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return [name for _, _, name in front]


def seen_ms(row: Mapping[str, Any], depth_ms: Mapping[str, float]) -> float:
    """Return the vision time of a variant, including the time to prepare depth."""
    depth = row["depth"]
    return row["vision_ms"] + (0 if depth is None else depth_ms[depth])


def difference(one: Scores, other: Scores) -> list[float]:
    """Return the mean difference of two variants and its 95 % interval, by paired bootstrap over frames."""
    a, b = ([value for frame in scores for value in frame] for scores in (one, other))
    return _rounded(((sum(a) - sum(b)) / len(a), *paired_interval(one, other)))


def with_interval(scores: Scores) -> list[float]:
    """Give the mean, and the ends of its 95 % interval."""
    values = [value for frame in scores for value in frame]
    return _rounded((sum(values) / len(values), *interval(scores)))


def to_hex(right: Right) -> str:
    """Pack right and wrong, the first question in the highest bit of the first digit; zeros fill the last."""
    bits = "".join("1" if mark else "0" for mark in _flat(right))
    return "".join(f"{int(bits[at : at + 4].ljust(4, '0'), 2):x}" for at in range(0, len(bits), 4))


def from_hex(packed: str, questions: int) -> list[bool]:
    """Unpack what `to_hex` packed."""
    bits = "".join(f"{int(digit, 16):04b}" for digit in packed)
    return [bit == "1" for bit in bits[:questions]]


def _flat(right: Right) -> list[bool]:
    return [mark for marks in right for mark in marks]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
