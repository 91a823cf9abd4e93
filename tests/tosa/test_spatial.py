"""The pseudo-spatial code beyond golden data: distances, free width, errors."""

import pytest
import torch
import torch.nn.functional as F

from tosa import SPATIAL_DIM, spatial_tokens


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


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="known: sinusoidal"):
        spatial_tokens(torch.zeros(1, 2, 2, dtype=torch.int64), kernel="gaussian")
