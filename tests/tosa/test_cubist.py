"""CubistMerge against vectors of the release and a slow version in plain Python, collisions included."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tosa import (
    METHODS,
    Assignment,
    EncoderShape,
    MergeSpec,
    MergeStep,
    PlanError,
    Tokens,
    apply,
    make_plan,
    max_magnitude,
    recover,
    unmerge,
)
from tosa.adjacent import join_neighbours, line_assignment
from tosa.grid import Grid, axis_windows, unit
from tosa.methods.cubist import CubistOptions

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = ["odd", "even", "rect", "big"]
merge = METHODS["cubist"].merge


def golden(case: str) -> tuple[Tokens, MergeStep, Tensor, Tensor]:
    with np.load(GOLDEN / "cubist.npz") as file:
        x, y, back = (torch.from_numpy(file[f"{case}_{name}"]) for name in ("x", "y", "recovered"))
        (rows, columns), r_hw = file[f"{case}_hw"].tolist(), file[f"{case}_r"].tolist()
    return Tokens.start(x, (rows, columns)), MergeStep(0, r_hw=tuple(r_hw)), y, back


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    tokens, step, y, back = golden(case)
    merged = merge(tokens, tokens.x, step)
    torch.testing.assert_close(merged.x, y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unmerge(merged), back, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(recover(merged), back, rtol=1e-4, atol=1e-4)
    assert merged.grid is not None and math.prod(merged.grid) == y.shape[1]


def test_columns_first_does_not_match() -> None:
    tokens, step, y, _ = golden("rect")
    assert tokens.grid is not None
    turned = Tokens.start(tokens.x.unflatten(1, tokens.grid).transpose(1, 2).flatten(1, 2), (16, 9))
    merged = merge(turned, turned.x, step)
    assert not torch.allclose(merged.x.unflatten(1, (14, 7)).transpose(1, 2).flatten(1, 2), y, atol=1e-4)


# The slow version.


@dataclass
class Cell:
    values: list[float]
    patches: list[int]
    place: int  # the patch whose place it keeps


def slow_cubist(x: Tensor, grid: Grid, window: Grid | None, r_hw: Grid) -> list[list[Cell]]:
    """Merge one image x [P, C], cell by cell."""
    height, width = grid
    rows = [
        [Cell(x[p].tolist(), [p], p) for p in range(row * width, (row + 1) * width)] for row in range(height)
    ]
    sides = (None, None) if window is None else window
    rows = [shorten(row, sides[1], r_hw[1]) for row in rows]
    columns = [shorten(list(column), sides[0], r_hw[0]) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def shorten(line: list[Cell], window: int | None, removed: int) -> list[Cell]:
    out, start = [], 0
    for length, gone in axis_windows(len(line), window, removed):
        out += shorten_stretch(line[start : start + length], gone)
        start += length
    return out


def shorten_stretch(cells: list[Cell], removed: int) -> list[Cell]:
    edges = [similarity(a.values, b.values) for a, b in pairwise(cells)] + [-math.inf]
    offers = sorted((-max(edges[q - 1], edges[q]), q) for q in range(1, len(cells), 2))
    groups = {place: [cell] for place, cell in enumerate(cells)}
    for _, q in offers[:removed]:
        groups[q + 1 if edges[q] > edges[q - 1] else q - 1] += groups.pop(q)
    return [join(groups[place]) for place in sorted(groups)]


def similarity(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def join(group: list[Cell]) -> Cell:
    values = [max(channel, key=abs) for channel in zip(*(cell.values for cell in group), strict=True)]
    return Cell(values, [patch for cell in group for patch in cell.patches], group[0].place)


sides = st.integers(1, 9)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Grid, Grid | None, Grid]:
    grid = draw(st.tuples(sides, sides))
    window = draw(st.none() | st.tuples(sides, sides))
    height, width = unit(grid, window)
    r_hw = draw(st.integers(0, height // 2)), draw(st.integers(0, width // 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return torch.randn(math.prod(grid), 4, generator=generator), grid, window, r_hw


@given(problem=problems(), num_prefix=st.sampled_from([0, 1, 5]))
@settings(max_examples=150, deadline=None)
def test_it_equals_the_slow_version(problem: tuple[Tensor, Grid, Grid | None, Grid], num_prefix: int) -> None:
    x, grid, window, r_hw = problem
    prefix = torch.full((num_prefix, 4), 99.0)
    tokens = Tokens.start(torch.cat([prefix, x])[None], grid, num_prefix, None, window, track_position=True)
    merged = merge(tokens, tokens.x, MergeStep(0, r_hw=r_hw))
    slow = slow_cubist(x, grid, window, r_hw)
    assert merged.grid == (len(slow), len(slow[0]))
    cells = [cell for row in slow for cell in row]
    assert torch.equal(merged.x[0, :num_prefix], prefix)
    assert torch.equal(merged.x[0, num_prefix:], torch.tensor([cell.values for cell in cells]))
    assert merged.size[0, num_prefix:].tolist() == [len(cell.patches) for cell in cells]
    assert merged.position is not None
    assert merged.position[0, num_prefix:].tolist() == [cell.place for cell in cells]
    for number, cell in enumerate(cells):
        assert sorted(cell.patches) == (merged.source[0] == num_prefix + number).nonzero()[:, 0].tolist()


# Five tokens of a row; 1 and 3 are both most like 2, and each is the largest in one channel.
COLLISION = torch.tensor([[[-1.0, 9, 0], [3, 0.1, 1], [2, 0.2, 1.1], [2, 0.1, 1.2], [0, -1, 9]]])


def test_both_neighbours_of_a_token_count() -> None:
    merged = merge(Tokens.start(COLLISION, (1, 5)), COLLISION, MergeStep(0, r_hw=(0, 2)))
    assert merged.source.tolist() == [[0, 1, 1, 1, 2]]
    assert merged.x[0, 1].tolist() == pytest.approx([3, 0.2, 1.2])
    assert merged.size.tolist() == [[1, 3, 1]]


def test_forgetting_one_of_them_would_be_seen() -> None:
    """As the release does, which keeps one of two tokens that go to the same place."""

    def forgetful(values: Tensor, size: Tensor, assignment: Assignment) -> Tensor:
        assert assignment.members is not None
        return max_magnitude(values, size, replace(assignment, members=assignment.members[..., :2]))

    target = torch.tensor([[[0, 2, 2, 2, 4]]])
    both = line_assignment(target, ((5, 2),), num_prefix=0, along="rows")
    tokens = Tokens.start(COLLISION, (1, 5))
    right = merge(tokens, COLLISION, MergeStep(0, r_hw=(0, 2))).x
    assert torch.equal(apply(tokens, both, max_magnitude).x, right)
    assert not torch.equal(apply(tokens, both, forgetful).x, right)


def test_the_sign_stays_and_equals_go_to_the_survivor() -> None:
    x = torch.tensor([[[2.0, -1.0, 1.0], [1.0, -3.0, -1.0]]])
    merged = merge(Tokens.start(x, (1, 2)), x, MergeStep(0, r_hw=(0, 1)))
    assert merged.x.tolist() == [[[2.0, -3.0, 1.0]]]


def test_equal_likeness_goes_to_the_left_then_by_index() -> None:
    similarity = torch.ones(1, 1, 6)
    assert join_neighbours(similarity, ((7, 2),)).tolist() == [[[0, 0, 2, 2, 4, 5, 6]]]
    assert join_neighbours(similarity, ((4, 1), (3, 1))).tolist() == [[[0, 0, 2, 3, 4, 4, 6]]]


def test_similarities_are_float32_for_half_precision() -> None:
    """Neighbours so alike that bfloat16 cannot tell which are more so."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 1, 64, generator=generator)
    half = (common + 0.05 * torch.randn(2, 64, 64, generator=generator)).bfloat16()
    merged = merge(Tokens.start(half, (8, 8)), half, MergeStep(0, r_hw=(0, 3)))
    assert merged.x.dtype is torch.bfloat16
    assert torch.equal(merged.source, chosen(half.double()))
    assert not torch.equal(merged.source, chosen(half))


def chosen(x: Tensor) -> Tensor:
    """Merge 3 of each row of 8, by similarity as precise as x is."""
    rows = x.unflatten(1, (8, 8))
    edges = torch.cosine_similarity(rows[:, :, :-1], rows[:, :, 1:], dim=-1)
    return line_assignment(join_neighbours(edges, ((8, 3),)), ((8, 3),), num_prefix=0, along="rows").dest


# Token 1 looks like 0 and lies where 2 lies.
@pytest.mark.parametrize(("depth_weight", "source"), [(0.0, [0, 0, 1]), (0.9, [0, 1, 1])])
def test_depth_can_decide(depth_weight: float, source: list[int]) -> None:
    x = torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]])
    spatial = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    tokens = Tokens.start(x, (1, 3), spatial=spatial)
    merged = merge(tokens, x, MergeStep(0, r_hw=(0, 1), options=CubistOptions(depth_weight)))
    assert merged.source.tolist() == [source]
    assert merged.spatial is not None and merged.spatial.shape == (1, 2, 2)


@pytest.mark.parametrize("r_hw", [(3, 1), (1, 4), (0, 7), (-1, 0)])
def test_more_than_half_of_an_axis_is_refused(r_hw: Grid) -> None:
    tokens = Tokens.start(torch.ones(1, 35, 2), (5, 7))
    with pytest.raises(ValueError, match=r"r_hw .* does not fit a grid of .* at most half"):
        METHODS["cubist"].merge(tokens, tokens.x, MergeStep(0, r_hw=r_hw))
    merged = METHODS["cubist"].merge(tokens, tokens.x, MergeStep(0, r_hw=(2, 3)))
    assert merged.grid == (3, 4)


def test_depth_needs_spatial_tokens() -> None:
    shape = EncoderShape(4, (6, 6))
    assert not make_plan(MergeSpec("cubist", keep_ratio=0.5), shape).needs_spatial
    plan = make_plan(MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": 0.3}), shape)
    assert plan.needs_spatial
    x = torch.randn(1, 36, 4)
    with pytest.raises(ValueError, match="depth_weight needs spatial tokens"):
        merge(Tokens.start(x, (6, 6)), x, next(step for step in plan.steps if step))


@pytest.mark.parametrize("depth_weight", [-0.1, 1.0, math.nan, "much"])
def test_bad_weights_are_refused(depth_weight: float) -> None:
    with pytest.raises(PlanError, match="depth_weight must be") as error:
        make_plan(
            MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": depth_weight}),
            EncoderShape(4, (6, 6)),
        )
    assert error.value.code == "bad_option"


def test_several_layers_find_the_way_back() -> None:
    x = torch.randn(2, 1 + 64, 8, generator=torch.Generator().manual_seed(1))
    plan = make_plan(MergeSpec("cubist", r_hw=(2, 1), layers=(0, 1, 3)), EncoderShape(4, (8, 8), 1))
    tokens = Tokens.start(x, (8, 8), num_prefix=1)
    for step in plan.steps:
        tokens = tokens if step is None else merge(tokens, tokens.x, step)
    assert plan.grids is not None and tokens.grid == plan.grids[-1] == (2, 5)
    back = recover(tokens).abs()
    assert back.shape == (2, 64, 8)
    assert (back >= x[:, 1:].abs()).all()  # every patch finds the largest magnitude of its group
    assert (back > x[:, 1:].abs()).any()
