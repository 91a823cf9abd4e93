"""Average pooling: what torch's pooling gives where blocks are equal, near-equal blocks elsewhere."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tosa import METHODS, MergeStep, Tokens, unmerge
from tosa.grid import Grid
from tosa.layout import cells, centres

merge = METHODS["pool"].merge


def grid_features(grid: Grid, num_prefix: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, num_prefix + grid[0] * grid[1], 5, generator=generator)


def pooled(x: Tensor, grid: Grid, kept: Grid) -> Tensor:
    return F.adaptive_avg_pool2d(x.unflatten(1, grid).permute(0, 3, 1, 2), kept).flatten(2).mT


@pytest.mark.parametrize(
    ("grid", "r_hw"), [((4, 6), (2, 3)), ((4, 6), (0, 3)), ((6, 9), (5, 6)), ((3, 3), (2, 2))]
)
@pytest.mark.parametrize("num_prefix", [0, 2])
def test_equal_blocks_are_average_pooling(grid: Grid, r_hw: Grid, num_prefix: int) -> None:
    x = grid_features(grid, num_prefix)
    merged = merge(Tokens.start(x, grid, num_prefix), x, MergeStep(0, r_hw=r_hw))
    kept = grid[0] - r_hw[0], grid[1] - r_hw[1]
    assert merged.grid == kept
    torch.testing.assert_close(merged.x[:, num_prefix:], pooled(x[:, num_prefix:], grid, kept))
    assert torch.equal(merged.x[:, :num_prefix], x[:, :num_prefix])
    assert (merged.size[:, num_prefix:] == grid[0] * grid[1] / kept[0] / kept[1]).all()


def test_blocks_differ_by_one_at_most() -> None:
    device = torch.device("cpu")
    assert cells(((5, 3),), device).tolist() == [0, 0, 0, 1, 1]
    assert cells(((4, 2), (3, 1)), device).tolist() == [0, 0, 1, 1, 2, 2, 3]
    for length in range(1, 20):
        for kept in range(1, length + 1):
            counts = cells(((length, length - kept),), device).bincount()
            assert len(counts) == kept and counts.max() - counts.min() <= 1


def test_the_token_in_the_middle_keeps_its_place() -> None:
    device = torch.device("cpu")
    assert centres(((5, 3),), device).tolist() == [1, 3]
    assert centres(((4, 2), (3, 2)), device).tolist() == [0, 2, 5]
    x = grid_features((3, 3))
    merged = merge(Tokens.start(x, (3, 3), track_position=True), x, MergeStep(0, r_hw=(2, 2)))
    assert merged.position is not None and merged.position.tolist() == [[4], [4]]


def test_pooling_again_weighs_by_size() -> None:
    """Blocks of 3 and 2 columns, then both together: the mean of all five, not of the two means."""
    x = grid_features((1, 5))
    once = merge(Tokens.start(x, (1, 5)), x, MergeStep(0, r_hw=(0, 3)))
    assert once.size.tolist() == [[3, 2]] * 2
    twice = merge(once, once.x, MergeStep(1, r_hw=(0, 1)))
    torch.testing.assert_close(twice.x, x.mean(1, keepdim=True))
    assert not torch.allclose(twice.x, once.x.mean(1, keepdim=True))


def test_windows_are_pooled_one_by_one() -> None:
    """A 6 x 7 grid in windows of 4 x 4 loses half: whole windows 2 of 4, the cut ones 1 of 2 and 1 of 3."""
    x = grid_features((6, 7))
    merged = merge(Tokens.start(x, (6, 7), window=(4, 4)), x, MergeStep(0, r_hw=(2, 2)))
    assert (merged.grid, merged.window) == ((3, 4), (2, 2))
    back = unmerge(merged).unflatten(1, (6, 7))
    for rows, columns in [((0, 4), (0, 4)), ((4, 6), (0, 4)), ((0, 4), (4, 7)), ((4, 6), (4, 7))]:
        window = x.unflatten(1, (6, 7))[:, rows[0] : rows[1], columns[0] : columns[1]]
        grid = (rows[1] - rows[0], columns[1] - columns[0])
        r_hw = (grid[0] // 2, grid[1] // 2)
        alone = merge(Tokens.start(window.flatten(1, 2), grid), x, MergeStep(0, r_hw=r_hw))
        expected = unmerge(alone).unflatten(1, grid)
        torch.testing.assert_close(back[:, rows[0] : rows[1], columns[0] : columns[1]], expected)


def test_any_target_is_one_step_away() -> None:
    x = grid_features((6, 7))
    merged = merge(Tokens.start(x, (6, 7)), x, MergeStep(0, r_hw=(5, 6)))
    torch.testing.assert_close(merged.x, x.mean(1, keepdim=True))


@pytest.mark.parametrize("r_hw", [None, (6, 0), (-1, 0)])
def test_a_step_that_does_not_fit_is_refused(r_hw: Grid | None) -> None:
    x = grid_features((6, 7))
    with pytest.raises(ValueError, match="r_hw"):
        merge(Tokens.start(x, (6, 7)), x, MergeStep(0, r_hw=r_hw))
