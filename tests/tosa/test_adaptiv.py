"""AdapTiV: signs alone decide, only near tokens are compared, and the order stays."""

import pytest
import torch

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, Tokens, make_plan
from tosa.methods.adaptiv import AdaptivOptions, near, sign_rows

merge = METHODS["adaptiv"].merge
SIGNS = torch.tensor(
    [[1.0, 1, -1, -1], [1, -1, 1, -1], [-1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]]
)[None]


def start(x: torch.Tensor, num_prefix: int = 0) -> Tokens:
    return Tokens.start(x, (1, x.shape[1] - num_prefix), num_prefix)


def test_signs_are_of_what_layer_norm_sees() -> None:
    assert torch.equal(sign_rows(5 * SIGNS + 100), SIGNS)


def test_only_signs_count() -> None:
    x = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(-1, keepdim=True)
    loud = x.sign() * (x.abs() + 3)
    loud = loud - loud.mean(-1, keepdim=True)
    assert torch.equal(x.sign(), loud.sign())
    step = MergeStep(0, r=6)
    assert torch.equal(merge(start(x), x, step).source, merge(start(loud), loud, step).source)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_the_best_pair_within_reach_merges_in_place(num_prefix: int) -> None:
    """Patches 0 and 3 agree fully but are two pairs apart; 1 and 2, the next best, only by 0."""
    x = torch.cat([torch.zeros(1, num_prefix, 4), SIGNS], dim=1)
    far, close = (
        merge(start(x, num_prefix), x, MergeStep(0, r=1, options=AdaptivOptions(reach))) for reach in (2, 1)
    )
    assert (far.source - num_prefix).tolist() == [[2, 0, 1, 2, 3, 4]]  # 1 2 (0 and 3) 4 5
    assert close.source[0, 0] != close.source[0, 3]


def test_reach_counts_odd_tokens_on_either_side() -> None:
    found = near(4, 3, 1, torch.device("cpu"))
    assert found.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert near(4, 3, 9, torch.device("cpu")).all()


def test_a_reach_of_everything_is_the_default_on_few_tokens() -> None:
    x = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(1))
    whole = merge(start(x), x, MergeStep(0, r=5, options=AdaptivOptions(400)))
    assert torch.equal(whole.source, merge(start(x), x, MergeStep(0, r=5)).source)


def test_bad_options_are_refused() -> None:
    with pytest.raises(PlanError, match="reach must be an integer from 1 to 4096, got 0"):
        make_plan(MergeSpec("adaptiv", r=2, options={"reach": 0}), EncoderShape(3, (4, 4)))
