"""Token counts: exact or refused, on the layers asked for, whatever the schedule."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tosa import METHODS, EncoderShape, MergeMethod, MergeSpec, PlanError, make_plan
from tosa.counts import count_tokens

SHAPE = EncoderShape(num_layers=8, grid=(24, 24), hidden_size=192, mlp_size=768)
FREE = [name for name, method in METHODS.items() if method.merges and not method.keeps_grid]
schedules = st.sampled_from(["constant", "decreasing", "increasing"]) | st.floats(-1, 1)


def halved(patches: int, times: int) -> int:
    for _ in range(times):
        patches -= patches // 2
    return patches


def removals(spec: MergeSpec, shape: EncoderShape = SHAPE) -> list[int]:
    return [before - after for before, after in pairwise(make_plan(spec, shape).counts)]


@given(
    name=st.sampled_from(FREE),
    grid=st.tuples(st.integers(1, 32), st.integers(1, 32)),
    num_layers=st.integers(1, 32),
    prefix=st.integers(0, 5),
    keep_ratio=st.floats(0, 1, exclude_min=True),
    schedule=schedules,
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_keep_ratio_is_exact_or_refused(
    name: str,
    grid: tuple[int, int],
    num_layers: int,
    prefix: int,
    keep_ratio: float,
    schedule: str | float,
    data: st.DataObject,
) -> None:
    shape, method = EncoderShape(num_layers, grid, prefix), METHODS[name]
    given_layers = data.draw(st.none() | st.sets(st.integers(0, num_layers - 1), min_size=1).map(tuple))
    default = max(1, num_layers // 2) if method.layers == "first_half" else num_layers
    layers = range(default) if given_layers is None else given_layers
    target, least = max(1, round(keep_ratio * shape.patches)), halved(shape.patches, len(layers))
    spec = MergeSpec(name, keep_ratio=keep_ratio, schedule=schedule, layers=given_layers)
    if target < least:
        refused_below(spec, shape, least)
        return
    plan = make_plan(spec, shape)
    assert (plan.tokens_in, plan.tokens_out) == (shape.patches, target)
    assert plan.keep_ratio == target / shape.patches
    assert len(plan.counts) == num_layers + 1
    for layer, (before, after) in enumerate(pairwise(n - prefix for n in plan.counts)):
        assert 0 <= before - after <= (before // 2 if layer in layers else 0)
        assert (plan.steps[layer] is None) == (before == after)


def refused_below(spec: MergeSpec, shape: EncoderShape, least: int) -> None:
    """The named keep_ratio works and gives the least; one ten-thousandth less is refused as well."""
    with pytest.raises(PlanError) as error:
        make_plan(spec, shape)
    smallest = error.value.limit
    assert error.value.code == "keep_ratio_too_small" and smallest is not None
    assert str(error.value).endswith(f"the smallest possible keep_ratio is {smallest}.")
    assert make_plan(replace(spec, keep_ratio=smallest), shape).tokens_out == least
    with pytest.raises(PlanError):
        make_plan(replace(spec, keep_ratio=round(smallest - 1e-4, 4)), shape)


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
    assert removals(MergeSpec("tome", keep_ratio=0.25, schedule=schedule)) == removed


def test_schedules_run_over_the_layers_that_merge() -> None:
    spec = MergeSpec("tome", keep_ratio=0.5, schedule="increasing", layers=(6, 1, 3))
    assert removals(spec) == [0, 0, 0, 96, 0, 0, 192, 0]
    assert removals(replace(spec, schedule="constant")) == [0, 96, 0, 96, 0, 0, 96, 0]


def test_layers_at_their_limit_hand_the_rest_to_others() -> None:
    """160 tokens to 12 over four layers: nearly every layer has to halve, whatever the schedule wants."""
    shape = EncoderShape(4, (10, 16))
    assert removals(MergeSpec("tome", keep_ratio=12 / 160, schedule="increasing"), shape) == [64, 48, 24, 12]
    assert removals(MergeSpec("tome", keep_ratio=12 / 160, schedule="decreasing"), shape) == [74, 43, 21, 10]


def test_r_follows_the_paper_and_stops_at_half() -> None:
    plan = make_plan(MergeSpec("tome", r=8), EncoderShape(4, (4, 4), num_prefix=1))
    assert plan.counts == (17, 9, 5, 3, 2)
    assert [step.r for step in plan.steps if step] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("spec", "removed"),
    [
        (MergeSpec("tome", r=(3, 0, 2)), [3, 0, 2, 0, 0, 0, 0, 0]),
        (MergeSpec("tome", r=(3, 2), layers=(2, 5, 6)), [0, 0, 3, 0, 0, 2, 0, 0]),
        (MergeSpec("tome", r=10, layers=(2, 5, 6)), [0, 0, 10, 0, 0, 10, 10, 0]),
        (MergeSpec("tome", r=10, layers=(2, 5, 6), schedule="decreasing"), [0, 0, 20, 0, 0, 10, 0, 0]),
        (MergeSpec("saint", r=10), [10, 10, 10, 10, 0, 0, 0, 0]),
        (MergeSpec("tome", r=()), [0] * 8),
    ],
)
def test_r_is_taken_at_the_layers_that_merge(spec: MergeSpec, removed: list[int]) -> None:
    assert removals(spec) == removed


def test_r_hw_is_taken_at_each_layer() -> None:
    plan = make_plan(MergeSpec("cubist", r_hw=(2, 3), layers=(1, 4)), SHAPE)
    assert plan.grids == ((24, 24), (24, 24), (22, 21), (22, 21), (22, 21), *[(20, 18)] * 4)
    assert [(step.layer, step.r_hw, step.r) for step in plan.steps if step] == [
        (1, (2, 3), 576 - 462),
        (4, (2, 3), 462 - 360),
    ]
    assert make_plan(MergeSpec("cubist", r_hw=(12, 12)), SHAPE).tokens_out == 144
    assert make_plan(MergeSpec("pool", r_hw=(23, 23)), SHAPE).tokens_out == 1


def test_r_hw_is_of_each_window() -> None:
    plan = make_plan(MergeSpec("pool", r_hw=(7, 7)), replace(SHAPE, grid=(64, 64), window=(14, 14)))
    assert plan.grids is not None and plan.windows is not None
    assert (plan.grids[-1], plan.windows[-1]) == ((32, 32), (7, 7))


# Methods of one layer.


def layers_of(spec: MergeSpec, method: MergeMethod, shape: EncoderShape = SHAPE) -> list[int]:
    tokens = count_tokens(spec, shape, method).tokens
    return [layer for layer, (before, after) in enumerate(pairwise(tokens)) if after < before]


@pytest.mark.parametrize(
    ("keep_ratio", "first", "halves", "layers"),
    [
        (0.5, 1, True, [1]),
        (0.3, 1, True, [1, 2]),
        (0.12, 1, True, [1, 2, 3, 4]),
        (0.12, 1, False, [1]),
        (0.12, 20, False, [7]),
        (0.12, 20, True, [4, 5, 6, 7]),
        (3 / 576, 3, True, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1.0, 3, True, []),
    ],
)
def test_one_layer_becomes_as_many_as_the_target_needs(
    keep_ratio: float, first: int, halves: bool, layers: list[int]
) -> None:
    one = replace(METHODS["tome"], layers="one", first_layer=first, halves=halves)
    assert layers_of(MergeSpec("tome", keep_ratio=keep_ratio), one) == layers


@pytest.mark.parametrize(
    ("name", "keep_ratio", "layers"),
    [
        ("cubist", 0.25, [1]),
        ("cubist", 0.2, [1, 2]),
        ("cubist", 0.01, [1, 2, 3, 4]),
        ("pool", 0.01, [1]),
        ("expedite", 0.01, [6]),
    ],
)
def test_grid_methods_stand_where_they_should(name: str, keep_ratio: float, layers: list[int]) -> None:
    spec = MergeSpec(name, keep_ratio=keep_ratio)
    assert layers_of(spec, METHODS[name]) == layers
    assert len(layers_of(spec, METHODS[name], replace(SHAPE, num_layers=5))) == len(layers)


def test_one_layer_takes_r_as_given() -> None:
    one = replace(METHODS["tome"], layers="one", first_layer=2)
    assert layers_of(MergeSpec("tome", r=5), one) == [2]
    assert layers_of(MergeSpec("tome", r=(5, 5, 5)), one) == [2, 3, 4]


def test_a_method_that_drops_freely_leaves_one() -> None:
    free = replace(METHODS["tome"], halves=False)
    assert count_tokens(MergeSpec("tome", r=400), SHAPE, free).tokens[:4] == (576, 176, 1, 1)
    assert count_tokens(MergeSpec("tome", keep_ratio=0.001, layers=(3,)), SHAPE, free).tokens[-1] == 1
