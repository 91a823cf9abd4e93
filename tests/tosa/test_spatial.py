"""The pseudo-spatial code beyond golden data: distances, free width, errors."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tosa import (
    METHODS,
    SPATIAL_DIM,
    MergeStep,
    Tokens,
    bipartite,
    cosine,
    position_tokens,
    spatial_tokens,
)


def similarity(z: Tensor, kernel: str, levels: int | None = None) -> Tensor:
    """Cosine of every patch with every other: z [h, w] -> [h*w, h*w]."""
    code = F.normalize(spatial_tokens(z[None], kernel=kernel, levels=levels), dim=-1)[0]
    return code @ code.mT


def is_monotone(line: Tensor) -> bool:
    """Say whether similarity falls with every step along a line [n, n], wherever one starts."""
    n = len(line)
    rightwards = all(line[i, j] > line[i, j + 1] + 1e-6 for i in range(n) for j in range(i, n - 1))
    return rightwards and all(line[i, j] > line[i, j - 1] + 1e-6 for i in range(n) for j in range(1, i + 1))


def test_similarity_falls_with_distance_on_every_axis() -> None:
    z = torch.tensor([[[0, 0, 0], [1, 2, 0]]])
    code = F.normalize(spatial_tokens(z), dim=-1)[0].view(2, 3, SPATIAL_DIM)
    here = code[0, 0]
    one_column, two_columns = here @ code[0, 1], here @ code[0, 2]
    assert one_column == pytest.approx((2 + 0.950) / 3, abs=1e-3)
    assert two_columns == pytest.approx((2 + 0.839) / 3, abs=1e-3)
    one_row_one_level = here @ code[1, 0]
    assert one_row_one_level == pytest.approx((1 + 2 * 0.950) / 3, abs=1e-3)


@pytest.mark.parametrize("dim", [6, 12, 96])
def test_the_width_is_free(dim: int) -> None:
    code = spatial_tokens(torch.zeros(2, 4, 5, dtype=torch.int64), dim)
    assert code.shape == (2, 20, dim)
    assert code.dtype is torch.float32


@pytest.mark.parametrize("dim", [0, -6, 64])
def test_a_width_that_does_not_split_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match="multiple of 6"):
        spatial_tokens(torch.zeros(1, 2, 2, dtype=torch.int64), dim)


@pytest.mark.parametrize("dim", [6, 12, 72])
def test_positions_take_the_same_width(dim: int) -> None:
    z = torch.zeros(1, 3, 4, dtype=torch.int64)
    ours = position_tokens((3, 4), dim=dim, device="cpu")
    assert torch.equal(ours[..., : dim // 3 * 2], spatial_tokens(z, dim)[..., : dim // 3 * 2])
    assert position_tokens((3, 4), device="meta").device.type == "meta"
    with pytest.raises(ValueError, match="multiple of 6"):
        position_tokens((3, 4), dim=dim + 1)


def test_levels_outside_the_extent_count_as_the_nearest() -> None:
    z = torch.tensor([[[-3, 0, 3, 4, 9]]])
    codes = spatial_tokens(z, kernel="distance", levels=4)[0, :, 4:]
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[2], codes[3]) and torch.equal(codes[2], codes[4])
    assert not torch.equal(codes[1], codes[2])


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="known: sinusoidal"):
        spatial_tokens(torch.zeros(1, 2, 2, dtype=torch.int64), kernel="gaussian")


AXES = {
    "rows": torch.zeros(27, 1, dtype=torch.int64),
    "columns": torch.zeros(1, 27, dtype=torch.int64),
    "levels": torch.arange(27)[None],
}


@pytest.mark.parametrize("axis", AXES)
def test_distance_is_monotone_on_every_axis(axis: str) -> None:
    assert is_monotone(similarity(AXES[axis], "distance", levels=27))
    assert not is_monotone(similarity(AXES[axis], "sinusoidal"))


def test_distance_tells_far_from_near_on_each_axis_alone() -> None:
    """Moving along one axis costs the same wherever the other two stand."""
    z = torch.randint(0, 9, (9, 9), generator=torch.Generator().manual_seed(0))
    code = spatial_tokens(z[None], kernel="distance", levels=9)[0].view(9, 9, 3, 2)
    row, column, level = (code[4, 4] * code).sum(-1).unbind(-1)
    away = torch.arange(9).sub(4).abs()
    assert all(row[away == a].max() < row[away == b].min() for b, a in pairwise(range(5)))
    assert all(column.mT[away == a].max() < column.mT[away == b].min() for b, a in pairwise(range(5)))
    deeper = (z - z[4, 4]).abs()
    apart = sorted(set(deeper.flatten().tolist()))
    assert all(level[deeper == a].max() < level[deeper == b].min() for b, a in pairwise(apart))


def test_neighbours_are_nearer_than_anything_else() -> None:
    same_depth = torch.full((7, 9), 3)
    near = similarity(same_depth, "distance").view(7, 9, 7, 9)
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij")
    for row in range(7):
        for column in range(9):
            steps = (rows - row).abs() + (columns - column).abs()
            here, beside, elsewhere = (near[row, column][steps == n] for n in (0, 1, steps.clamp(min=2)))
            assert here.item() > beside.max()
            assert beside.min() > elsewhere.max()


def test_a_merged_code_stays_near_the_centroid() -> None:
    """The mean of neighbours' codes points where the code of the middle would: 3 patches in a row."""
    z = torch.zeros(1, 9, 9, dtype=torch.int64)
    for kernel in ("sinusoidal", "distance"):
        code = spatial_tokens(z, kernel=kernel)[0].view(9, 9, -1)
        merged = code[4, 2:5].mean(0)
        nearest = F.cosine_similarity(merged, code.flatten(0, 1), dim=-1).argmax().item()
        assert divmod(int(nearest), 9) == (4, 3)


@pytest.mark.parametrize(("kernel", "finds"), [("distance", True), ("sinusoidal", False)])
def test_a_merged_code_of_far_ends_is_in_their_middle(kernel: str, finds: bool) -> None:
    """Where the paper's code fails: its waves do not know what lies between two distant places."""
    code = spatial_tokens(torch.zeros(1, 1, 27, dtype=torch.int64), kernel=kernel)[0]
    found = [
        int(F.cosine_similarity((code[a] + code[b])[None] / 2, code, dim=-1).argmax())
        for a, b in ((0, 10), (2, 24), (4, 20), (6, 26))
    ]
    assert (found == [5, 13, 12, 16]) == finds


def test_positions_are_the_spatial_code_without_depth() -> None:
    full = spatial_tokens(torch.randint(0, 5, (2, 4, 5)), kernel="distance")
    assert torch.equal(position_tokens((4, 5), batch=2, kernel="distance"), full[..., :4])
    full = spatial_tokens(torch.randint(0, 5, (2, 4, 5)))
    positions = position_tokens((4, 5), batch=2)
    assert torch.equal(positions[..., :48], full[..., :48])
    assert positions.shape[-1] == 49 and not positions[..., 48].any()  # which says that there is no depth


@pytest.mark.parametrize("kernel", ["sinusoidal", "distance"])
def test_tosa_runs_on_positions_alone(kernel: str) -> None:
    """At alpha 0 only neighbours merge: no group reaches farther than its odd token's direct neighbours."""
    x = torch.randn(1, 81, 16, generator=torch.Generator().manual_seed(0))
    tokens = Tokens.start(x, (9, 9), spatial=position_tokens((9, 9), kernel=kernel))
    merged = METHODS["tosa"].merge(tokens, x, MergeStep(0, r=30, alpha=0.0))
    by_looks = METHODS["tosa"].merge(tokens, x, MergeStep(0, r=30, alpha=1.0))
    assert widest_group(merged.source[0]) <= 2
    assert widest_group(by_looks.source[0]) > 2
    assert torch.equal(
        by_looks.source, bipartite(cosine(x, 0), 30, 0).dest
    )  # and at alpha 1 they do not matter


def widest_group(source: Tensor) -> int:
    """Rows or columns between the farthest patches of any group on a 9 x 9 grid."""
    patches = [(source == token).nonzero()[:, 0] for token in source.unique()]
    return max(int(max(side.max() - side.min() for side in (patch // 9, patch % 9))) for patch in patches)
