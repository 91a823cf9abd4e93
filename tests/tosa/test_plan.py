"""Plans: what every layer is told, what it costs, what is refused and why."""

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, Tokens, UnknownMethod, make_plan
from tosa.methods.cubist import CubistOptions

SHAPE = EncoderShape(num_layers=8, grid=(24, 24), hidden_size=192, mlp_size=768)
MERGING = [name for name, method in METHODS.items() if method.merges]


def test_steps_say_what_a_layer_does() -> None:
    plan = make_plan(MergeSpec("tome", r=(3, 0, 2)), EncoderShape(5, (4, 4)))
    assert plan.steps == (MergeStep(0, r=3, num_layers=5), None, MergeStep(2, r=2, num_layers=5), None, None)


def test_alpha_goes_to_the_method_that_uses_it() -> None:
    def alphas(name: str) -> list[float | str]:
        plan = make_plan(MergeSpec(name, keep_ratio=0.25, alpha="decrease"), SHAPE)
        return [step.alpha for step in plan.steps if step]

    assert alphas("tosa") == pytest.approx([1 - layer / 7 for layer in range(8)])
    for name in MERGING:
        assert name == "tosa" or set(alphas(name)) == {1.0}


@pytest.mark.parametrize("name", METHODS)
def test_options_are_filled_in_and_reach_every_step(name: str) -> None:
    plan = make_plan(MergeSpec(name, keep_ratio=0.5 if METHODS[name].merges else None), SHAPE)
    kind = METHODS[name].options
    assert plan.options == (kind() if kind else None)
    assert all(step.options is plan.options for step in plan.steps if step)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.options])
def test_the_options_of_another_method_are_refused(name: str) -> None:
    tokens = Tokens.start(torch.ones(1, 36, 2), (6, 6))
    step = MergeStep(0, r=2, r_hw=(1, 1), options=MergeSpec())
    kind = METHODS[name].options
    assert kind is not None
    with pytest.raises(TypeError, match=f"must be {kind.__name__} or None, got MergeSpec"):
        METHODS[name].merge(tokens, tokens.x, step)


def test_options_of_the_request_come_first() -> None:
    spec = MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": 0.25})
    plan = make_plan(spec, SHAPE)
    assert plan.options == CubistOptions(depth_weight=0.25)
    assert plan.needs_spatial and not make_plan(replace(spec, options=()), SHAPE).needs_spatial
    assert make_plan(MergeSpec("tosa", keep_ratio=0.5), SHAPE).needs_spatial


@pytest.mark.parametrize("name", METHODS)
def test_prop_attn_is_the_methods_default_unless_said(name: str) -> None:
    keep = 0.5 if METHODS[name].merges else None
    assert make_plan(MergeSpec(name, keep_ratio=keep), SHAPE).prop_attn == METHODS[name].prop_attn
    assert make_plan(MergeSpec(name, prop_attn=False, keep_ratio=keep), SHAPE).prop_attn is False
    # Without merging every size is 1, so there is nothing to weigh.
    assert (
        make_plan(MergeSpec(name, prop_attn=True, keep_ratio=keep), SHAPE).prop_attn == METHODS[name].merges
    )


def macs(tokens: int, keys: int, after: int, width: int, mlp: int) -> int:
    return 4 * tokens * width**2 + 2 * tokens * keys * width + 2 * after * width * mlp


def test_flops_of_a_merge_before_the_mlp() -> None:
    shape = EncoderShape(num_layers=2, grid=(1, 4), num_prefix=1, hidden_size=3, mlp_size=7)
    plan = make_plan(MergeSpec("tome", r=(2,)), shape)
    assert plan.counts == (5, 3, 3)
    ours = macs(5, 5, 3, 3, 7) + macs(3, 3, 3, 3, 7)
    assert plan.flops() == 2 * ours
    assert plan.flops_ratio == pytest.approx(float(Fraction(ours, 2 * macs(5, 5, 5, 3, 7))))
    assert make_plan(MergeSpec(), shape).flops_ratio == 1.0


def test_flops_of_a_merge_before_the_block() -> None:
    """CubistMerge (1, 1) in layer 1 of 2: 0.870 of DeiT-B in the release's terms, which has 12 layers."""
    shape = EncoderShape(num_layers=2, grid=(3, 4), num_prefix=1, hidden_size=3, mlp_size=7)
    plan = make_plan(MergeSpec("cubist", r_hw=(1, 1)), shape)
    assert plan.counts == (13, 13, 7)
    assert plan.flops() == 2 * (macs(13, 13, 13, 3, 7) + macs(7, 7, 7, 3, 7))
    deit = EncoderShape(12, (14, 14), num_prefix=1, hidden_size=768, mlp_size=3072)
    assert make_plan(MergeSpec("cubist", r_hw=(1, 1)), deit).flops_ratio == pytest.approx(0.870, abs=5e-4)
    assert make_plan(MergeSpec(), deit).flops() / 2 == pytest.approx(17.45e9, rel=1e-3)


def test_flops_on_windows_count_what_fills_them_up() -> None:
    """8 x 9 in windows of 5 x 5 fills four of 25, after (1, 1) in layer 1 four of 16; layer 2 is global."""
    shape = EncoderShape(4, (8, 9), hidden_size=3, mlp_size=7, window=(5, 5), global_layers=(2,))
    plan = make_plan(MergeSpec("pool", r_hw=(1, 1)), shape)
    assert plan.grids == ((8, 9), (8, 9), (7, 8), (7, 8), (7, 8))
    layers = macs(100, 25, 72, 3, 7), macs(64, 16, 56, 3, 7), macs(56, 56, 56, 3, 7), macs(64, 16, 56, 3, 7)
    assert plan.flops() == 2 * sum(layers)
    plain = 3 * macs(100, 25, 72, 3, 7) + macs(72, 72, 72, 3, 7)
    assert plan.flops_ratio == pytest.approx(sum(layers) / plain)


def test_flops_of_a_method_that_only_the_caller_has() -> None:
    plan = make_plan(MergeSpec("pool", keep_ratio=0.5), SHAPE)
    assert replace(plan, method="mine").flops() == plan.flops()
    assert replace(plan, at_entry=False).flops() > plan.flops()


def test_flops_of_other_widths() -> None:
    narrow, wide = replace(SHAPE, hidden_size=0), replace(SHAPE, hidden_size=384, mlp_size=1536)
    spec = MergeSpec("tome", keep_ratio=0.5)
    assert make_plan(spec, narrow).flops(wide) == make_plan(spec, wide).flops()
    with pytest.raises(ValueError, match="both widths"):
        make_plan(spec, narrow).flops()
    with pytest.raises(ValueError, match="8 layers"):
        make_plan(spec, SHAPE).flops(replace(SHAPE, num_layers=7))


def test_the_table_of_a_free_method() -> None:
    plan = make_plan(MergeSpec("tome", r=(3, 0, 2)), EncoderShape(3, (10, 10), num_prefix=1))
    assert plan.table().splitlines() == [
        "layer  tokens in  removed  tokens out",
        "    0        101        3          98",
        "    1         98        0          98",
        "    2         98        2          96",
    ]


def test_the_table_of_a_grid_and_of_windows() -> None:
    plan = make_plan(MergeSpec("cubist", r_hw=(3, 4)), EncoderShape(2, (64, 64), window=(14, 14)))
    assert plan.table().splitlines() == [
        "layer  tokens in  removed  tokens out     grid   window",
        "    0       4096        0        4096    64x64    14x14",
        "    1       4096     1750        2346    51x46    11x10",
    ]
    assert "window" not in make_plan(MergeSpec(), SHAPE).table()


@pytest.mark.parametrize("name", METHODS)
def test_plans_are_values(name: str) -> None:
    spec = MergeSpec(name, keep_ratio=0.75 if METHODS[name].merges else None)
    plan = make_plan(spec, SHAPE)
    assert make_plan(replace(spec), SHAPE) is plan
    assert len({plan, make_plan(replace(spec, order="merge"), SHAPE)}) == 2
    assert replace(plan) == plan and hash(replace(plan)) == hash(plan)
    assert plan.keep_ratio == plan.tokens_out / plan.tokens_in


def test_lists_and_mappings_are_frozen() -> None:
    loose: Any = {"r": [3, 2], "layers": [1, 5], "alpha": [0.5] * 8}
    assert MergeSpec("tosa", **loose) == MergeSpec("tosa", r=(3, 2), layers=(1, 5), alpha=(0.5,) * 8)
    assert make_plan(MergeSpec("tosa", **loose), SHAPE) is make_plan(MergeSpec("tosa", **loose), SHAPE)
    assert MergeSpec(r_hw=[1, 2]) == MergeSpec(r_hw=(1, 2))  # type: ignore[arg-type]
    options = {"top_k": 5, "iterations": 2}
    spec = MergeSpec("expedite", keep_ratio=0.5, options=options)
    options["top_k"] = 9
    assert spec.options == (("iterations", 2), ("top_k", 5))
    assert make_plan(spec, SHAPE) is make_plan(replace(spec, options={"iterations": 2, "top_k": 5}), SHAPE)
    with pytest.raises(FrozenInstanceError):
        spec.method = "pool"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        (MergeSpec("tomesd"), "unknown_method", "method"),
        (MergeSpec("tome"), "one_budget", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=0.5, r=3), "one_budget", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=0.0), "bad_keep_ratio", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=1.01), "bad_keep_ratio", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=float("nan")), "bad_keep_ratio", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=0.001), "keep_ratio_too_small", "keep_ratio"),
        (MergeSpec("tome", r=-1), "bad_r", "r"),
        (MergeSpec("tome", r=(1, -1)), "bad_r", "r"),
        (MergeSpec("tome", r=(1,) * 9), "bad_r", "r"),
        (MergeSpec("tome", r=(1, 2), schedule="decreasing"), "bad_schedule", "schedule"),
        (MergeSpec("tome", r=1, schedule="sideways"), "bad_schedule", "schedule"),
        (MergeSpec("tome", r=1, schedule=1.5), "bad_schedule", "schedule"),
        (MergeSpec("tome", r=1, schedule=float("nan")), "bad_schedule", "schedule"),
        (MergeSpec("tosa", r=1, alpha="sometimes"), "bad_alpha", "alpha"),
        (MergeSpec("tosa", r=1, alpha=1.1), "bad_alpha", "alpha"),
        (MergeSpec("tosa", r=1, alpha=float("nan")), "bad_alpha", "alpha"),
        (MergeSpec("tosa", r=1, alpha=(0.5,) * 7), "bad_alpha", "alpha"),
        (MergeSpec("none", keep_ratio=0.5), "nothing_to_remove", "keep_ratio"),
        (MergeSpec("none", r=1), "nothing_to_remove", "r"),
        (MergeSpec("none", r_hw=(1, 1)), "nothing_to_remove", "r_hw"),
        (MergeSpec("none", layers=(1,)), "nothing_to_remove", "layers"),
        (MergeSpec("tome", r_hw=(1, 1)), "wrong_budget", "r_hw"),
        (MergeSpec("tome", keep_ratio=0.5, r_hw=(1, 1)), "wrong_budget", "r_hw"),
        (MergeSpec("cubist", r=5), "wrong_budget", "r"),
        (MergeSpec("cubist"), "one_budget", "keep_ratio"),
        (MergeSpec("cubist", keep_ratio=0.5, r_hw=(1, 1)), "one_budget", "keep_ratio"),
        (MergeSpec("cubist", keep_ratio=0.1, layers=(1,)), "keep_ratio_too_small", "keep_ratio"),
        (MergeSpec("cubist", keep_ratio=0.5, schedule=2.0), "bad_schedule", "schedule"),
        (MergeSpec("cubist", r_hw=(1, 1), schedule="increasing"), "bad_schedule", "schedule"),
        (MergeSpec("cubist", r_hw=(13, 1)), "bad_r_hw", "r_hw"),
        (MergeSpec("cubist", r_hw=(1, 9), layers=(0, 1)), "bad_r_hw", "r_hw"),
        (MergeSpec("cubist", r_hw=(1, -1)), "bad_r_hw", "r_hw"),
        (MergeSpec("cubist", r_hw=(1,)), "bad_r_hw", "r_hw"),  # type: ignore[arg-type]
        (MergeSpec("pool", r_hw=(24, 1)), "bad_r_hw", "r_hw"),
        (MergeSpec("tome", r=(1, 2, 3), layers=(1, 2)), "bad_r", "r"),
        (MergeSpec("tome", r=1, layers=()), "bad_layers", "layers"),
        (MergeSpec("tome", r=1, layers=(1, 1)), "bad_layers", "layers"),
        (MergeSpec("tome", r=1, layers=(1, 8)), "bad_layers", "layers"),
        (MergeSpec("cubist", keep_ratio=0.5, layers=(-1,)), "bad_layers", "layers"),
        (MergeSpec("tome", r=1, options={"depth_weight": 0.5}), "unknown_option", "options"),
        (MergeSpec("cubist", keep_ratio=0.5, options={"weight": 0.5}), "unknown_option", "options"),
        (MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": 2}), "bad_option", "options"),
        (MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": [1]}), "bad_option", "options"),  # type: ignore[dict-item]
        (MergeSpec("pitome", r=1, options={"margin": {}}), "bad_option", "options"),  # type: ignore[dict-item]
        (MergeSpec("pitome", r=1, options=[("margin")]), "bad_option", "options"),  # type: ignore[arg-type]
        (MergeSpec("pitome", r=1, options=None), "bad_option", "options"),  # type: ignore[arg-type]
        (MergeSpec("pitome", r=1, options={"alpha": 10**400}), "bad_option", "options"),
        (MergeSpec("tome", keep_ratio="x"), "bad_keep_ratio", "keep_ratio"),  # type: ignore[arg-type]
        (MergeSpec("tome", keep_ratio=True), "bad_keep_ratio", "keep_ratio"),
        (MergeSpec("tome", r=2.5), "bad_r", "r"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=True), "bad_r", "r"),
        (MergeSpec("tome", r=10**400), "bad_r", "r"),
        (MergeSpec("tome", r=(1.5,)), "bad_r", "r"),  # type: ignore[arg-type]
        (MergeSpec("tome", r={}), "bad_r", "r"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=1, layers=(0.5,)), "bad_layers", "layers"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=1, layers=3), "bad_layers", "layers"),  # type: ignore[arg-type]
        (MergeSpec("cubist", r_hw=(1, "x")), "bad_r_hw", "r_hw"),  # type: ignore[arg-type]
        (MergeSpec("cubist", r_hw=1), "bad_r_hw", "r_hw"),  # type: ignore[arg-type]
        (MergeSpec("tosa", r=1, alpha=object()), "bad_alpha", "alpha"),  # type: ignore[arg-type]
        (MergeSpec("tosa", r=1, alpha=(None,) * 8), "bad_alpha", "alpha"),  # type: ignore[arg-type]
        (MergeSpec("tosa", r=1, alpha=10**400), "bad_alpha", "alpha"),
        (MergeSpec("tome", r=1, schedule=None), "bad_schedule", "schedule"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=1, prop_attn="yes"), "bad_prop_attn", "prop_attn"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=1, order=[]), "bad_order", "order"),  # type: ignore[arg-type]
        (MergeSpec(["tome"]), "unknown_method", "method"),  # type: ignore[arg-type]
        (MergeSpec("tosa", r=1, spatial_kernel="round"), "bad_spatial_kernel", "spatial_kernel"),  # type: ignore[arg-type]
        (MergeSpec("tome", r=1, order="random"), "bad_order", "order"),  # type: ignore[arg-type]
    ],
)
def test_refusals(spec: MergeSpec, code: str, field: str) -> None:
    with pytest.raises(PlanError) as error:
        make_plan(spec, SHAPE)
    assert (error.value.code, error.value.field) == (code, field)


def test_a_number_of_the_wrong_kind_is_refused_although_an_equal_one_was_planned() -> None:
    for right, wrong in ((MergeSpec("tome", r=1), True), (MergeSpec("tome", r=2), 2.0)):
        make_plan(right, SHAPE)
        with pytest.raises(PlanError):
            make_plan(replace(right, r=wrong), SHAPE)  # type: ignore[arg-type]
    make_plan(MergeSpec("expedite", keep_ratio=0.5, options={"top_k": 5}), SHAPE)
    with pytest.raises(PlanError):
        make_plan(MergeSpec("expedite", keep_ratio=0.5, options={"top_k": 5.0}), SHAPE)


def test_numbers_of_numpy_count_as_numbers() -> None:
    loose: Any = {"r": np.int64(3), "layers": [np.int32(1), 5], "alpha": np.float32(0.5)}
    assert make_plan(MergeSpec("tosa", **loose), SHAPE) is make_plan(
        MergeSpec("tosa", r=3, layers=(1, 5), alpha=0.5), SHAPE
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("needs", [{"requires_grid": True}, {"window": (14, 14)}])
def test_an_encoder_that_needs_its_grid_takes_only_methods_that_keep_it(
    name: str, needs: dict[str, Any]
) -> None:
    shape = replace(SHAPE, name="SAM", **needs)
    spec = MergeSpec(name, keep_ratio=0.5 if METHODS[name].merges else None)
    if METHODS[name].keeps_grid:
        assert make_plan(spec, shape).grids is not None
        return
    with pytest.raises(PlanError, match=f"SAM needs its grid and {name} breaks it up; it runs with") as error:
        make_plan(spec, shape)
    assert (error.value.code, error.value.field) == ("incompatible", "method")
    for other, method in METHODS.items():
        assert (other in str(error.value).split("runs with")[1]) == method.keeps_grid


def test_plans_name_the_options_there_are() -> None:
    with pytest.raises(PlanError, match="expedite has no option 'tau'; it has iterations, temperature"):
        make_plan(MergeSpec("expedite", keep_ratio=0.5, options={"tau": 1}), SHAPE)
    with pytest.raises(PlanError, match="tome has no option 'tau'; it has none"):
        make_plan(MergeSpec("tome", keep_ratio=0.5, options={"tau": 1}), SHAPE)


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(UnknownMethod, match=r"unknown method 'tomesd'; known: none, tome, tosa"):
        make_plan(MergeSpec("tomesd", keep_ratio=0.5), SHAPE)
