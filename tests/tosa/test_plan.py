"""What a plan promises before any model work: exact counts, limits, and errors that say what to do."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, UnknownMethod, make_plan

SHAPE = EncoderShape(num_layers=8, grid=(24, 24), hidden_size=192, mlp_size=768)
MERGING = [name for name, method in METHODS.items() if method.merges]
schedules = st.sampled_from(["constant", "decreasing", "increasing"]) | st.floats(-1, 1)


@given(
    rows=st.integers(1, 32),
    columns=st.integers(1, 32),
    layers=st.integers(1, 32),
    prefix=st.integers(0, 5),
    keep_ratio=st.floats(0, 1, exclude_min=True),
    schedule=schedules,
)
def test_keep_ratio_is_exact_or_refused(
    rows: int, columns: int, layers: int, prefix: int, keep_ratio: float, schedule: str | float
) -> None:
    shape = EncoderShape(layers, (rows, columns), prefix)
    target = max(1, round(keep_ratio * shape.patches))
    try:
        plan = make_plan(MergeSpec("tome", keep_ratio=keep_ratio, schedule=schedule), shape)
    except PlanError as error:
        assert error.code == "keep_ratio_too_small"
        assert target < halved(shape.patches, layers)
        return
    assert plan.tokens_in == shape.patches
    assert plan.tokens_out == target
    assert len(plan.counts) == layers + 1
    for before, after in pairwise(n - prefix for n in plan.counts):
        assert 0 <= before - after <= before // 2


def halved(patches: int, times: int) -> int:
    for _ in range(times):
        patches -= patches // 2
    return patches


@pytest.mark.parametrize(("layers", "grid"), [(1, (5, 5)), (2, (24, 24)), (3, (27, 27))])
def test_the_named_smallest_keep_ratio_works(layers: int, grid: tuple[int, int]) -> None:
    shape = EncoderShape(layers, grid)
    with pytest.raises(PlanError, match="smallest possible keep_ratio is") as error:
        make_plan(MergeSpec("tome", keep_ratio=0.01), shape)
    smallest = float(str(error.value).rsplit(" ", 1)[1])
    plan = make_plan(MergeSpec("tome", keep_ratio=smallest), shape)
    assert plan.tokens_out == halved(shape.patches, layers)


@pytest.mark.parametrize(
    ("schedule", "removed"),
    [
        ("constant", [54] * 8),
        ("decreasing", [108, 93, 77, 61, 47, 31, 15, 0]),
        ("increasing", [0, 15, 31, 47, 61, 77, 93, 108]),
        (0.5, [27, 35, 42, 50, 58, 66, 73, 81]),
    ],
)
def test_schedules_spread_the_removals(schedule: str | float, removed: list[int]) -> None:
    assert removals(MergeSpec("tome", keep_ratio=0.25, schedule=schedule), SHAPE) == removed


def removals(spec: MergeSpec, shape: EncoderShape) -> list[int]:
    return [before - after for before, after in pairwise(make_plan(spec, shape).counts)]


def test_layers_at_their_limit_hand_the_rest_to_others() -> None:
    """160 tokens to 12 over four layers: nearly every layer has to halve, whatever the schedule wants."""
    shape = EncoderShape(4, (10, 16))
    assert removals(MergeSpec("tome", keep_ratio=12 / 160, schedule="increasing"), shape) == [64, 48, 24, 12]
    assert removals(MergeSpec("tome", keep_ratio=12 / 160, schedule="decreasing"), shape) == [74, 43, 21, 10]


def test_r_follows_the_paper_and_stops_at_half() -> None:
    plan = make_plan(MergeSpec("tome", r=8), EncoderShape(4, (4, 4), num_prefix=1))
    assert plan.counts == (17, 9, 5, 3, 2)
    assert [step.r for step in plan.steps if step] == [8, 4, 2, 1]


def test_a_list_of_r_is_taken_as_it_is() -> None:
    plan = make_plan(MergeSpec("tome", r=(3, 0, 2)), EncoderShape(5, (4, 4)))
    assert plan.counts == (16, 13, 13, 11, 11, 11)
    assert plan.steps == (MergeStep(0, r=3), None, MergeStep(2, r=2), None, None)


def test_alpha_goes_to_the_method_that_uses_it() -> None:
    alphas = {
        name: [step.alpha for step in make_plan(MergeSpec(name, r=4, alpha="decrease"), SHAPE).steps if step]
        for name in MERGING
    }
    assert alphas["tome"] == [1.0] * 8
    assert alphas["tosa"] == pytest.approx([1 - layer / 7 for layer in range(8)])


@pytest.mark.parametrize("name", METHODS)
def test_prop_attn_is_the_methods_default_unless_said(name: str) -> None:
    keep = 0.5 if METHODS[name].merges else None
    assert make_plan(MergeSpec(name, keep_ratio=keep), SHAPE).prop_attn == METHODS[name].prop_attn
    assert make_plan(MergeSpec(name, prop_attn=False, keep_ratio=keep), SHAPE).prop_attn is False
    # Without merging every size is 1, so there is nothing to weigh.
    assert (
        make_plan(MergeSpec(name, prop_attn=True, keep_ratio=keep), SHAPE).prop_attn == METHODS[name].merges
    )


def test_flops_ratio() -> None:
    shape = EncoderShape(num_layers=2, grid=(1, 4), num_prefix=1, hidden_size=3, mlp_size=7)
    plan = make_plan(MergeSpec("tome", r=(2,)), shape)
    assert plan.counts == (5, 3, 3)
    attention = {n: 4 * n * 9 + 2 * n * n * 3 for n in (3, 5)}
    mlp = {n: 2 * n * 3 * 7 for n in (3, 5)}
    ours = attention[5] + mlp[3] + attention[3] + mlp[3]
    assert plan.flops_ratio == pytest.approx(float(Fraction(ours, 2 * (attention[5] + mlp[5]))))
    assert make_plan(MergeSpec(), shape).flops_ratio == 1.0


def test_plans_are_values() -> None:
    spec = MergeSpec("tosa", keep_ratio=0.25)
    assert make_plan(spec, SHAPE) is make_plan(MergeSpec("tosa", keep_ratio=0.25), SHAPE)
    assert len({make_plan(spec, SHAPE), make_plan(MergeSpec("tosa", keep_ratio=0.5), SHAPE)}) == 2


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        (MergeSpec("tomesd"), "unknown_method", "method"),
        (MergeSpec("tome"), "one_dial", "keep_ratio"),
        (MergeSpec("tome", keep_ratio=0.5, r=3), "one_dial", "keep_ratio"),
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
        (MergeSpec("tome", r=1, order="random"), "bad_order", "order"),  # type: ignore[arg-type]
    ],
)
def test_refusals(spec: MergeSpec, code: str, field: str) -> None:
    with pytest.raises(PlanError) as error:
        make_plan(spec, SHAPE)
    assert (error.value.code, error.value.field) == (code, field)


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(UnknownMethod, match=r"unknown method 'tomesd'; known: none, tome, tosa"):
        make_plan(MergeSpec("tomesd", keep_ratio=0.5), SHAPE)
