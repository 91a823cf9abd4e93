"""The variants of a comparison: methods, ratios, schedules, sources of depth, and one-factor ablations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from tosa import METHODS, MergePlan, MergeSpec, PlanError, make_plan
from tosa.shape import EncoderShape

KEEP_RATIOS = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
ABLATED_RATIOS = (0.25, 0.1)
SCHEDULES = ("constant", "decreasing")


@dataclass(frozen=True)
class Variant:
    """One way to encode a frame: a merge request and a source of depth (see `evals.rooms.depth_sources`)."""

    spec: MergeSpec
    depth: str | None = None

    @property
    def name(self) -> str:
        """Return a readable name, unique and stable from run to run."""
        spec = self.spec
        if spec.keep_ratio is None:
            return spec.method
        return ", ".join([f"{spec.method} {spec.keep_ratio:g} {spec.schedule}", *self.extras])

    @property
    def extras(self) -> tuple[str, ...]:
        """Describe what differs from the method's defaults."""
        source = [f"{self.depth} depth" if self.depth != "x and y" else self.depth] if self.depth else []
        return (*source, *(f"{name} {_text(value)}" for name, value in changed(self.spec).items()))


@dataclass(frozen=True)
class Ablation:
    """One factor changed from a method's shipped variant; `control` uses another frame's depth instead."""

    factor: str
    value: str
    variant: Variant
    shipped: Variant
    control: Variant | None = None


@dataclass(frozen=True)
class Planned:
    """The plans, the variants that methods refuse and why, and those that are the same work as another."""

    plans: dict[Variant, MergePlan]
    refused: dict[Variant, str]
    same_as: dict[Variant, Variant]


def changed(spec: MergeSpec) -> dict[str, Any]:
    """Return the fields that differ from their defaults and are not named first in a variant's name."""
    named, plain = ("method", "keep_ratio", "schedule", "options"), MergeSpec()
    values = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in named}
    return {name: value for name, value in values.items() if value != getattr(plain, name)} | dict(
        spec.options
    )


def compared(
    methods: Sequence[str],
    keep_ratios: Sequence[float],
    schedules: Sequence[str] = SCHEDULES,
    with_estimate: bool = True,
) -> list[Variant]:
    """List no merging, and every method at every ratio and schedule.

    ToSA that merges evenly is also asked with estimated depth.
    """
    found = [Variant(MergeSpec())]
    for keep, name, schedule in product(keep_ratios, methods, schedules):
        spec = MergeSpec(name, keep_ratio=keep, schedule=schedule)
        found.append(Variant(spec, "true" if name == "tosa" else None))
        if with_estimate and name == "tosa" and schedule == "constant":
            found.append(Variant(spec, "estimated"))
    return found


def ablations(methods: Sequence[str], keep_ratios: Sequence[float], num_layers: int) -> list[Ablation]:
    """List the one-factor changes: all factors of ToSA, and of other methods those they share with it."""
    found = []
    for keep in keep_ratios:
        if "tosa" in methods:
            found += list(_of_tosa(keep, num_layers))
        found += [one for name in methods for one in _of_another(name, keep)]
    return found


def with_controls(
    variants: Sequence[Variant], alphas: Sequence[str | float], controlled: Sequence[str | float]
) -> list[Variant]:
    """Ask ToSA with every weight of `alphas`, and those of `controlled` with another frame's depth too."""
    plain = [one for one in variants if one.spec.method != "tosa"]
    tosa = [
        replace(one, spec=replace(one.spec, alpha=alpha))
        for alpha in alphas
        for one in variants
        if one.spec.method == "tosa"
    ]
    controls = [replace(one, depth="shuffled") for one in tosa if one.spec.alpha in controlled]
    return list(dict.fromkeys([*plain, *tosa, *controls]))


def plan_all(variants: Sequence[Variant], shape: EncoderShape) -> Planned:
    """Plan each variant once; among variants that are the same work, the first stands for all."""
    planned = Planned({}, {}, {})
    first: dict[tuple[Any, ...], Variant] = {}
    for variant in dict.fromkeys(variants):
        try:
            plan = make_plan(variant.spec, shape)
        except PlanError as error:
            planned.refused[variant] = str(error)
            continue
        planned.plans[variant] = plan
        depth_source = (variant.depth, variant.spec.spatial_kernel) if plan.needs_spatial else ()
        same = first.setdefault((work(plan), depth_source), variant)
        if same is not variant:
            planned.same_as[variant] = same
    return planned


def with_schedule(variant: Variant, schedule: str) -> Variant:
    """Return the variant with another schedule."""
    return replace(variant, spec=replace(variant.spec, schedule=schedule))


def work(plan: MergePlan) -> tuple[Any, ...]:
    """Return what the encoder does under a plan; requests with the same work give equal values."""
    return plan.method, plan.steps, plan.options, plan.prop_attn, plan.order


def _of_tosa(keep: float, num_layers: int) -> Iterator[Ablation]:
    shipped = Variant(MergeSpec("tosa", keep_ratio=keep), "true")
    for factor, values in _tosa_changes(num_layers).items():
        for value, change in values.items():
            variant = replace(shipped, spec=replace(shipped.spec, **change))
            control = replace(variant, depth="shuffled")
            yield Ablation(factor, value, variant, shipped, control)
    for source in ("estimated", "sensed", "stereo", "shuffled", "x and y"):
        yield Ablation("depth", source, replace(shipped, depth=source), shipped)


def _tosa_changes(num_layers: int) -> dict[str, dict[str, dict[str, Any]]]:
    half, last = num_layers // 2, num_layers - num_layers // 4
    return {
        "nothing": {"as shipped": {}},
        "spatial kernel": {"distance": {"spatial_kernel": "distance"}},
        "alpha": {
            "decrease": {"alpha": "decrease"},
            "uniform (0.5)": {"alpha": "uniform"},
            "0.2": {"alpha": 0.2},
            "0.8": {"alpha": 0.8},
        },
        "schedule": {
            "decreasing": {"schedule": "decreasing"},
            "-0.5": {"schedule": -0.5},
            "increasing": {"schedule": "increasing"},
        },
        "layers": {
            "first half": {"layers": tuple(range(half))},
            "second half": {"layers": tuple(range(half, num_layers))},
            "last quarter": {"layers": tuple(range(last, num_layers))},
        },
        "prop_attn": {"off": {"prop_attn": False}},
        "order": {"merge": {"order": "merge"}},
        "together": {
            "distance, decreasing": {"spatial_kernel": "distance", "schedule": "decreasing"},
            "distance, alpha uniform": {"spatial_kernel": "distance", "alpha": "uniform"},
            "distance, decreasing, alpha 0.8": {
                "spatial_kernel": "distance",
                "schedule": "decreasing",
                "alpha": 0.8,
            },
        },
    }


def _of_another(name: str, keep: float) -> Iterator[Ablation]:
    """Toggle proportional attention where sizes can differ from 1, and give CubistMerge depth."""
    method, shipped = METHODS[name], Variant(MergeSpec(name, keep_ratio=keep))
    if name not in ("tosa", "saint", "random"):  # the last two only drop
        switched = replace(shipped.spec, prop_attn=not method.prop_attn)
        value = "off" if method.prop_attn else "on"
        yield Ablation("prop_attn", value, Variant(switched), shipped)
    if method.spatial_option is not None:
        for weight in (0.3, 0.6):
            weighted = replace(shipped.spec, options={method.spatial_option: weight})
            variant = Variant(weighted, "true")
            control = replace(variant, depth="shuffled")
            yield Ablation(method.spatial_option, f"{weight}", variant, shipped, control)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(_text(each) for each in value)
    return str(value)
