"""Grids and windows: the arithmetic, and what all methods that keep a grid promise about them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, Tokens, make_plan, recover, unmerge
from tosa.grid import Grid, axis_windows, nearest_grid, shrink, unit
from tosa.methods.expedite import ExpediteOptions

GRID_METHODS = [name for name, method in METHODS.items() if method.keeps_grid and method.merges]
sides = st.integers(1, 20)
grids = st.tuples(sides, sides)
windows = st.none() | st.tuples(sides, sides)


def number_of_windows(grid: Grid, window: Grid | None) -> int:
    return (
        1 if window is None else math.prod(-(-side // size) for side, size in zip(grid, window, strict=True))
    )


@given(length=st.integers(1, 80), window=st.none() | st.integers(1, 80), data=st.data())
def test_spans_cover_the_axis_and_fit_the_smaller_window(
    length: int, window: int | None, data: st.DataObject
) -> None:
    longest = length if window is None else min(length, window)
    removed = data.draw(st.integers(0, longest - 1))
    windows = axis_windows(length, window, removed)
    assert sum(span for span, _ in windows) == length
    assert windows[0] == (longest, removed)
    for span, gone in windows:
        assert 1 <= span - gone <= longest - removed
        assert removed > longest // 2 or gone <= span // 2


def test_sam_fills_up_its_last_windows() -> None:
    """64 x 64 tokens in windows of 14: four whole ones and one with 8 rows that loses its share."""
    assert axis_windows(64, 14, 7) == ((14, 7),) * 4 + ((8, 4),)
    assert axis_windows(64, 14, 2) == ((14, 2),) * 4 + ((8, 1),)
    assert shrink((64, 64), (14, 14), (7, 2)) == ((32, 55), (7, 12))
    assert number_of_windows((64, 64), (14, 14)) == number_of_windows((32, 55), (7, 12)) == 25


def test_a_window_larger_than_the_grid_is_the_grid() -> None:
    assert unit((8, 30), (14, 14)) == (8, 14)
    assert shrink((8, 30), (14, 14), (3, 3)) == ((5, 24), (5, 11))
    assert shrink((8, 30), None, (3, 3)) == ((5, 27), None)
    assert shrink((8, 30), (14, 14), (0, 0)) == ((8, 30), (14, 14))  # no step, nothing changes


@given(grid=grids, window=windows, target=st.integers(1, 400), data=st.data())
@settings(deadline=None)
def test_the_nearest_grid_is_balanced_and_nearest(
    grid: Grid, window: Grid | None, target: int, data: st.DataObject
) -> None:
    whole = unit(grid, window)
    halves = st.booleans().map(lambda half: tuple(-(-side // 2) if half else 1 for side in whole))
    least: Grid = data.draw(halves)  # type: ignore[assignment]
    best = nearest_grid(grid, window, target, least)

    def tokens(size: Grid) -> int:
        return math.prod(shrink(grid, window, (whole[0] - size[0], whole[1] - size[1]))[0])

    def balanced(size: Grid) -> bool:
        return abs(size[0] / whole[0] - size[1] / whole[1]) <= 1 / min(whole) + 1e-9

    assert balanced(best) and best[0] >= least[0] and best[1] >= least[1]
    for rows in range(least[0], whole[0] + 1):
        for columns in range(least[1], whole[1] + 1):
            if balanced((rows, columns)):
                assert abs(tokens(best) - target) <= abs(tokens((rows, columns)) - target)


@pytest.mark.parametrize(
    ("keep_ratio", "grid"),
    [(1.0, (24, 24)), (0.5, (17, 17)), (0.25, (12, 12)), (0.1, (7, 8)), (0.001, (1, 1))],
)
def test_sides_shrink_alike(keep_ratio: float, grid: Grid) -> None:
    target = max(1, round(keep_ratio * 576))
    assert nearest_grid((24, 24), None, target, (1, 1)) == grid


# Plans on grids.


def cut_windows(shape: EncoderShape) -> bool:
    return any(side % size for side, size in zip(shape.grid, unit(shape.grid, shape.window), strict=True))


@st.composite
def shapes(draw: st.DrawFn) -> EncoderShape:
    grid, window = draw(grids), draw(windows)
    return EncoderShape(draw(st.integers(1, 8)), grid, window=window, requires_grid=draw(st.booleans()))


@given(
    shape=shapes(),
    name=st.sampled_from(GRID_METHODS),
    keep_ratio=st.floats(0, 1, exclude_min=True),
    schedule=st.floats(-1, 1),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_plans_keep_windows_and_come_nearest(
    shape: EncoderShape, name: str, keep_ratio: float, schedule: float, data: st.DataObject
) -> None:
    numbers = st.sets(st.integers(0, shape.num_layers - 1), min_size=1)
    layers = data.draw(st.none() | numbers.map(tuple))
    spec = MergeSpec(name, keep_ratio=keep_ratio, schedule=schedule, layers=layers)
    steps = shape.num_layers if layers is None else len(layers)
    method, whole = METHODS[name], unit(shape.grid, shape.window)
    share = 2**steps if method.halves else max(whole)
    least = -(-whole[0] // share), -(-whole[1] // share)
    smallest = math.prod(shrink(shape.grid, shape.window, (whole[0] - least[0], whole[1] - least[1]))[0])
    target = max(1, round(keep_ratio * shape.patches))
    try:
        plan = make_plan(spec, shape)
    except PlanError as error:
        assert error.code == "keep_ratio_too_small" and target < smallest
        assert error.limit is not None and error.limit > keep_ratio
        reached = make_plan(replace(spec, keep_ratio=error.limit), shape).tokens_out
        assert reached >= smallest if cut_windows(shape) else reached == smallest
        with pytest.raises(PlanError):
            make_plan(replace(spec, keep_ratio=round(error.limit - 1e-4, 4)), shape)
        return
    assert target >= smallest
    assert plan.grids is not None and plan.windows is not None
    size = nearest_grid(shape.grid, shape.window, target, least)
    nearest, _ = shrink(shape.grid, shape.window, (whole[0] - size[0], whole[1] - size[1]))
    if cut_windows(shape):  # each step rounds for them
        assert all(0 <= a - b < steps for a, b in zip(plan.grids[-1], nearest, strict=True))
    else:
        assert plan.grids[-1] == nearest
    for layer, step in enumerate(plan.steps):
        before, after = plan.grids[layer], plan.grids[layer + 1]
        assert (step is None) == (before == after)
        assert step is None or layers is None or layer in layers
        assert number_of_windows(before, plan.windows[layer]) == number_of_windows(
            after, plan.windows[layer + 1]
        )
        if step is not None and method.halves:
            assert all(2 * a >= b for a, b in zip(after, before, strict=True))


@given(shape=shapes(), name=st.sampled_from(GRID_METHODS), keep_ratio=st.floats(0.2, 1))
@settings(deadline=None, max_examples=40)
def test_methods_do_what_the_plan_says(shape: EncoderShape, name: str, keep_ratio: float) -> None:
    shape = replace(shape, num_layers=4)
    try:
        plan = make_plan(MergeSpec(name, keep_ratio=keep_ratio, layers=(0, 2, 3)), shape)
    except PlanError:
        assume(False)
        raise
    x = torch.randn(1, shape.patches, 3, generator=torch.Generator().manual_seed(shape.patches))
    tokens = Tokens.start(x, shape.grid, window=shape.window)
    assert plan.grids is not None and plan.windows is not None
    for layer, step in enumerate(plan.steps):
        tokens = tokens if step is None else METHODS[name].merge(tokens, tokens.x, step)
        assert (tokens.grid, tokens.window) == (plan.grids[layer + 1], plan.windows[layer + 1])
    assert tokens.x.shape[1] == plan.tokens_out
    assert unmerge(tokens).shape == recover(tokens).shape == x.shape


@pytest.mark.parametrize("name", GRID_METHODS)
def test_no_group_crosses_a_window(name: str) -> None:
    grid, window = (10, 11), (4, 4)
    x = torch.randn(2, 110, 6, generator=torch.Generator().manual_seed(0))
    tokens = Tokens.start(x, grid, window=window)
    for layer in range(2):
        tokens = METHODS[name].merge(tokens, tokens.x, MergeStep(layer, r_hw=(1, 1)))
    place = torch.arange(110)
    home = place // 11 // 4 * 3 + place % 11 // 4
    for source in tokens.source:
        for token in range(tokens.x.shape[1]):
            assert len(home[source == token].unique()) <= 1


# What holds for every method that keeps a grid.


class Merged(nn.Module):
    def __init__(self, name: str, step: MergeStep) -> None:
        super().__init__()
        self.merge, self.step = METHODS[name].merge, step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokens = Tokens.start(x, (8, 9), num_prefix=1, window=(5, 5))
        merged = self.merge(tokens, x, self.step)
        return merged.x, merged.size, merged.source, recover(merged)


def grid_features(batch: int = 2) -> Tensor:
    return torch.randn(batch, 73, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "pool" else pytest.mark.long) for name in GRID_METHODS],
)
def test_export_and_compile_take_it(name: str) -> None:
    rounds = ExpediteOptions(iterations=2) if name == "expedite" else None  # of five all the same to trace
    module, x = Merged(name, MergeStep(0, r_hw=(2, 1), options=rounds)), grid_features()
    expected = module(x)
    torch.compiler.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    exported = torch.export.export(module, (x,)).module()
    for result in (compiled(x), exported(x)):
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("name", GRID_METHODS)
def test_shapes_need_no_data(name: str) -> None:
    module, x = Merged(name, MergeStep(0, r_hw=(2, 1))), grid_features()
    with FakeTensorMode() as mode:
        fake = module(mode.from_tensor(x))
    assert [value.shape for value in fake] == [value.shape for value in module(x)]


@pytest.mark.parametrize("name", GRID_METHODS)
def test_values_in_values_out(name: str) -> None:
    """Inputs stay as they were, the same comes out again, and neighbours in the batch do not matter."""
    module, x = Merged(name, MergeStep(0, r_hw=(2, 1))), grid_features()
    before = x.clone()
    together = module(x)
    assert torch.equal(x, before)
    assert all(torch.equal(a, b) for a, b in zip(module(x), together, strict=True))
    for image in range(2):
        for alone, both in zip(module(x[image : image + 1]), together, strict=True):
            torch.testing.assert_close(alone[0], both[image], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GRID_METHODS)
def test_without_a_grid_it_says_so(name: str) -> None:
    tokens = replace(Tokens.start(grid_features()[:, 1:], (8, 9)), grid=None)
    with pytest.raises(ValueError, match="keeps a grid"):
        METHODS[name].merge(tokens, tokens.x, MergeStep(0, r_hw=(1, 1)))
