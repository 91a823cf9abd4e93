"""Starting, unmerging and ordering tokens, prefix and dropped patches included."""

from dataclasses import replace

import pytest
import torch

from tosa import Assignment, Tokens, apply, raster_order, unmerge, weighted_mean


def tokens_4() -> Tokens:
    """One class token and patches 0..3 whose channels say who they are."""
    x = torch.tensor([[[9.0], [0.0], [1.0], [2.0], [3.0]]])
    return Tokens.start(x, grid=(2, 2), num_prefix=1, spatial=x[:, 1:] * 10)


def merged() -> Tokens:
    """Patches 0 and 3 become token 2; the order is class, patch 2, {0, 3}, patch 1."""
    return apply(tokens_4(), Assignment(torch.tensor([[0, 2, 3, 1, 2]]), 4), weighted_mean)


def test_start() -> None:
    tokens = tokens_4()
    assert tokens.source.tolist() == [[1, 2, 3, 4]]
    assert tokens.size.tolist() == [[1.0] * 5]
    assert tokens.size.dtype is torch.float32
    assert tokens.spatial is not None and tokens.spatial.shape == (1, 5, 1)


def test_start_refuses_counts_that_disagree() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Tokens.start(torch.zeros(1, 5, 2), grid=(2, 2))
    with pytest.raises(ValueError, match="spatial tokens"):
        Tokens.start(torch.zeros(1, 4, 2), grid=(2, 2), spatial=torch.zeros(1, 3, 6))


def test_apply_moves_everything() -> None:
    tokens = merged()
    assert tokens.x.flatten().tolist() == [9.0, 2.0, 1.5, 1.0]
    assert tokens.spatial is not None and tokens.spatial.flatten().tolist() == [0.0, 20.0, 15.0, 10.0]
    assert tokens.size.tolist() == [[1.0, 1.0, 2.0, 1.0]]
    assert tokens.source.tolist() == [[2, 3, 1, 2]]
    assert tokens.grid is None


def test_apply_again_weighs_by_size_and_follows_the_patches() -> None:
    again = apply(merged(), Assignment(torch.tensor([[0, 1, 1, 2]]), 3), weighted_mean)
    assert again.x.flatten().tolist() == pytest.approx([9.0, (0 + 3 + 2) / 3, 1.0])
    assert again.source.tolist() == [[1, 2, 1, 1]]
    assert again.size.tolist() == [[1.0, 3.0, 1.0]]


def test_a_token_that_is_alone_comes_out_bit_equal() -> None:
    x = torch.randn(2, 3, 8)
    tokens = replace(Tokens.start(x, grid=(1, 3)), size=torch.tensor([[3.0, 7.0, 49.0]] * 2))
    moved = apply(tokens, Assignment(torch.tensor([[1, 2, 0]] * 2), 3), weighted_mean)
    assert torch.equal(moved.x, x[:, [2, 0, 1]])


def test_the_mean_is_taken_in_float32() -> None:
    """Summing 256 values near 1 in bfloat16 would stop growing at 256 ulp; the dtype still comes back."""
    x = torch.full((1, 512, 1), 1.0078125, dtype=torch.bfloat16)
    tokens = Tokens.start(x, grid=(16, 32))
    one = apply(tokens, Assignment(torch.zeros(1, 512, dtype=torch.int64), 1), weighted_mean)
    assert one.x.dtype is torch.bfloat16
    assert one.x.item() == 1.0078125


def test_unmerge_copies_back_to_the_grid() -> None:
    assert unmerge(merged()).flatten().tolist() == [1.5, 1.0, 2.0, 1.5]


def test_dropped_patches_are_zero_and_stay_dropped() -> None:
    tokens = replace(merged(), source=torch.tensor([[2, -1, 1, 2]]))
    assert unmerge(tokens).flatten().tolist() == [1.5, 0.0, 2.0, 1.5]
    again = apply(tokens, Assignment(torch.tensor([[0, 1, 1, 2]]), 3), weighted_mean)
    assert again.source.tolist() == [[1, -1, 1, 1]]
    assert raster_order(tokens).source.tolist() == [[1, -1, 2, 1]]


def test_raster_order_sorts_by_the_first_patch() -> None:
    tokens = raster_order(merged())
    assert tokens.x.flatten().tolist() == [9.0, 1.5, 1.0, 2.0]
    assert tokens.size.tolist() == [[1.0, 2.0, 1.0, 1.0]]
    assert tokens.source.tolist() == [[1, 2, 3, 1]]
    assert tokens.spatial is not None and tokens.spatial.flatten().tolist() == [0.0, 15.0, 10.0, 20.0]
    assert torch.equal(unmerge(tokens), unmerge(merged()))


def test_raster_order_leaves_a_grid_alone() -> None:
    tokens = tokens_4()
    assert raster_order(tokens) is tokens
