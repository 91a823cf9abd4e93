"""How groups become one token: the longest length, the largest magnitude, and who is left alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tosa import Assignment, Tokens, apply, drop, max_magnitude, mlerp, weighted_mean
from tosa.reduction import Reduction

REDUCTIONS = [weighted_mean, mlerp, max_magnitude]
# Multiples of 1/16 sum without error, so that opposite tokens cancel exactly or not at all.
VALUES = st.lists(
    st.lists(st.integers(-512, 512).map(lambda n: n / 16), min_size=3, max_size=3), min_size=3, max_size=9
)


def groups(dest: list[int], told: bool = True) -> Assignment:
    """Send every token to its group, which its first token leads; `told` which tokens join another."""
    num_out = max(dest) + 1
    survivor = [dest.index(group) for group in range(num_out)]
    members = [[token for token, group in enumerate(dest) if group == out] for out in range(num_out)]
    longest = max(map(len, members))
    joining = [token for token in range(len(dest)) if token not in survivor]
    return Assignment(
        dest=torch.tensor([dest]),
        num_out=num_out,
        survivor=torch.tensor([survivor]),
        merged=torch.tensor([joining], dtype=torch.int64) if told else None,
        members=torch.tensor([[group + group[:1] * (longest - len(group)) for group in members]]),
    )


def drawn_groups(data: st.DataObject, n: int) -> list[int]:
    """Draw a group for each of n tokens; every group below the highest has someone."""
    drawn = data.draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    return [sorted(set(drawn)).index(group) for group in drawn]


@given(VALUES, st.data(), st.booleans())
@settings(deadline=None)  # a busy machine is no failure
def test_mlerp_is_as_long_as_the_longest_of_the_group(
    rows: list[list[float]], data: st.DataObject, told: bool
) -> None:
    x, dest = torch.tensor([rows]), drawn_groups(data, len(rows))
    size = torch.tensor([data.draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))])
    fused = mlerp(x, size.float(), groups(dest, told))[0]
    mean = weighted_mean(x, size.float(), groups(dest, told))[0]
    for group, (ours, average) in enumerate(zip(fused, mean, strict=True)):
        mine = x[0, [token for token, each in enumerate(dest) if each == group]]
        longest = mine.norm(dim=-1).max().item()
        if average.norm() < 1e-3:  # the tokens cancel out: no direction, or one made by rounding
            assert ours.norm().item() <= longest * (1 + 1e-5)
            continue
        assert ours.norm().item() == pytest.approx(longest, rel=1e-5)
        assert torch.cosine_similarity(ours, average, dim=0).item() == pytest.approx(1, abs=1e-5)
        if len(mine) == 1:
            assert torch.equal(ours, mine[0])


def test_the_mean_is_shorter_where_mlerp_is_not() -> None:
    x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    together, size = groups([0, 0]), torch.ones(1, 2)
    assert weighted_mean(x, size, together).norm().item() == 2.5
    assert mlerp(x, size, together).norm().item() == pytest.approx(4.0)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e15])
def test_opposite_tokens_fuse_to_zero_not_to_nan(scale: float) -> None:
    x = scale * torch.tensor([[[3.0, -1.0], [-3.0, 1.0]]])
    assert torch.equal(mlerp(x, torch.ones(1, 2), groups([0, 0])), torch.zeros(1, 1, 2))


@given(VALUES, st.data(), st.booleans())
@settings(deadline=None)  # a busy machine is no failure
def test_max_magnitude_keeps_the_largest_of_all(
    rows: list[list[float]], data: st.DataObject, told: bool
) -> None:
    x, dest = torch.tensor([rows]), drawn_groups(data, len(rows))
    kept = max_magnitude(x, torch.ones(1, len(rows)), groups(dest, told))[0]
    for group, ours in enumerate(kept):
        mine = x[0, [token for token, each in enumerate(dest) if each == group]]
        assert torch.equal(ours.abs(), mine.abs().amax(0))
        assert ((mine == ours).any(0)).all()


def test_equal_magnitudes_go_to_the_survivor() -> None:
    x = torch.tensor([[[2.0, -1.0], [-2.0, 3.0], [2.0, -3.0]]])
    assert max_magnitude(x, torch.ones(1, 3), groups([0, 0, 0])).tolist() == [[[2.0, 3.0]]]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_token_alone_comes_out_bit_equal(reduction: Reduction, dtype: torch.dtype, told: bool) -> None:
    x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    size = torch.tensor([[3.0, 7.0, 49.0, 1.0, 1.0, 2.0]])
    out = reduction(x, size, groups([0, 1, 2, 0, 3, 0], told))
    assert out.dtype is dtype
    assert torch.equal(out[:, 1:], x[:, [1, 2, 4]])
    assert not torch.equal(out[:, 0], x[:, 0])


@pytest.mark.parametrize("reduction", [weighted_mean, mlerp])
def test_telling_who_joins_changes_nothing(reduction: Reduction) -> None:
    x = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(1))
    size, dest = torch.arange(1.0, 10.0)[None], [0, 1, 0, 2, 1, 0, 3, 0, 1]
    told, untold = (reduction(x, size, groups(dest, each)) for each in (True, False))
    torch.testing.assert_close(told, untold, rtol=1e-6, atol=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    """257 equal values near 1: a bfloat16 sum would stop growing at 256."""
    x = torch.full((1, 257, 1), 1.0078125, dtype=torch.bfloat16)
    assert weighted_mean(x, torch.ones(1, 257), groups([0] * 257)).item() == 1.0078125


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_flow(reduction: Reduction, told: bool) -> None:
    """Models are trained through merging: what a group becomes depends on its tokens, as far as it says."""
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    weight = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(3))
    size, assignment = torch.tensor([[1.0, 2.0, 3.0, 1.0, 1.0]]), groups([0, 0, 1, 2, 0], told)
    (gradient,) = torch.autograd.grad((reduction(x, size, assignment) * weight).sum(), x)
    with torch.no_grad():
        for token in range(5):
            step = torch.zeros_like(x)
            step[0, token] = 1e-2
            ahead, behind = (reduction(x + sign * step, size, assignment) for sign in (1, -1))
            slope = ((ahead - behind) * weight).sum() / 2e-2
            assert gradient[0, token].sum().item() == pytest.approx(slope.item(), abs=1e-3)


def start(num_prefix: int = 0) -> Tokens:
    x = torch.arange(6.0)[None, :, None].expand(2, -1, 3)
    tokens = Tokens.start(x, (1, 6 - num_prefix), num_prefix, x[:, num_prefix:], track_position=True)
    return replace(tokens, size=torch.tensor([[1.0, 2, 3, 4, 5, 6]] * 2))


def both(assignment: Assignment) -> Assignment:
    """Say the same of two images."""
    assert assignment.merged is not None
    return Assignment(
        dest=assignment.dest.repeat(2, 1),
        num_out=assignment.num_out,
        survivor=assignment.survivor.repeat(2, 1),
        merged=assignment.merged.repeat(2, 1),
    )


def test_drop_keeps_survivors_as_they_are() -> None:
    tokens = start(num_prefix=1)
    dropped = drop(tokens, both(groups([0, 1, 1, 2, 2, 3])))
    assert dropped.x[1, :, 0].tolist() == [0, 1, 3, 5]
    assert dropped.spatial is not None and dropped.spatial[1, :, 0].tolist() == [0, 1, 3, 5]
    assert dropped.size[1].tolist() == [1, 2, 4, 6]
    assert dropped.source[1].tolist() == [1, -1, 2, -1, 3]
    assert dropped.position is not None and dropped.position[1].tolist() == [0, 0, 2, 4]
    assert dropped.grid is None and dropped.has_holes


def test_drop_after_merge_loses_all_patches_of_the_dropped() -> None:
    merged = apply(start(), both(groups([0, 1, 0, 1, 2, 3])), weighted_mean)
    again = drop(merged, both(groups([0, 0, 1, 2])))
    assert again.source[0].tolist() == [0, -1, 0, -1, 1, 2]
    assert apply(again, both(groups([0, 1, 1])), weighted_mean).source[0].tolist() == [0, -1, 0, -1, 1, 1]


@pytest.mark.parametrize("move", [lambda t, a: apply(t, a, weighted_mean), drop])
def test_what_is_not_tracked_stays_so(move: type) -> None:
    tokens = replace(start(), source=torch.empty(2, 0, dtype=torch.int64), position=None, spatial=None)
    moved = move(tokens, both(groups([0, 0, 1, 2, 3, 4])))
    assert moved.source.shape == (2, 0)
    assert moved.position is None and moved.spatial is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("told", [True, False])
def test_a_mean_that_only_rounding_makes_has_no_direction(dtype: torch.dtype, told: bool) -> None:
    """Shares such as 1/3 are not exact in float32: the mean of opposite tokens is noise, not zero."""
    for ours in range(1, 40):
        for others in range(1, 40):
            x = torch.tensor([[[float(others), 2.0 * others], [-float(ours), -2.0 * ours]]], dtype=dtype)
            size = torch.tensor([[float(ours), float(others)]])
            assert torch.equal(mlerp(x, size, groups([0, 0], told)), torch.zeros(1, 1, 2, dtype=dtype))


def test_a_short_mean_with_a_direction_keeps_it() -> None:
    x = torch.tensor([[[3.0, 1e-4], [-3.0, 1e-4]]])
    torch.testing.assert_close(mlerp(x, torch.ones(1, 2), groups([0, 0])), torch.tensor([[[0.0, 3.0]]]))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("scale", [1e12, 1e20, 1e30, 1e38])
def test_huge_tokens_fuse_to_finite_ones(scale: float, told: bool) -> None:
    """Their squares are infinite in float32."""
    x = torch.tensor([[[3.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])
    fused = mlerp(x * scale, torch.ones(1, 3), groups([0, 0, 1], told))
    expected = mlerp(x, torch.ones(1, 3), groups([0, 0, 1], told)) * scale
    torch.testing.assert_close(fused, expected, rtol=1e-6, atol=0)
    assert fused.isfinite().all()


def test_scaling_leaves_ordinary_values_bit_equal() -> None:
    """The formula, without any care for huge values."""
    x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0)) * 100
    size = torch.arange(1.0, 7.0)[None]
    share = size[0] / 7.0
    mean = x[0, 0] * share[0] + x[0, 1] * share[1] + x[0, 3] * share[3]
    longest = x[0, [0, 1, 3]].norm(dim=-1).max()
    assert torch.equal(mlerp(x, size, groups([0, 0, 1, 0, 2, 3]))[0, 0], mean * (longest / mean.norm()))
