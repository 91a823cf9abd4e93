"""Float64 stays float64: nothing on the way rounds to float32, and gradients are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.tosa.cases import CASES, HEADS, WEIGHTS, images, one_step, scene
from tests.tosa.encoder import encode
from tosa import attention, attention_by_channel, recover, unmerge

MERGING = [name for name, case in CASES.items() if case.method.merges]


def merged_x(name: str, then: Callable[..., Tensor]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """One merge as a function of x alone, and an x of float64; the keys of the layer stay."""
    case = CASES[name]
    tokens, metric, step = one_step(case, num_prefix=1)
    by_x = case.method.site == "before_block"

    def merge(x: Tensor) -> Tensor:
        return then(case.method.merge(replace(tokens, x=x), x if by_x else metric, step))

    return merge, tokens.x.double()


@pytest.mark.parametrize("then", [lambda tokens: tokens.x, recover, unmerge], ids=["x", "recover", "unmerge"])
@pytest.mark.parametrize("name", MERGING)
def test_gradients_of_a_merge_are_those_of_its_values(name: str, then: Callable[..., Tensor]) -> None:
    """Finite differences of 1e-6: an intermediate in float32 would be wrong by a tenth."""
    merge, x = merged_x(name, then)
    assert merge(x).dtype is torch.float64
    assert gradcheck(merge, (x.requires_grad_(),), fast_mode=True)


@pytest.mark.long
def test_rounding_on_the_way_would_be_found() -> None:
    merge, x = merged_x("tome", lambda tokens: tokens.x.float().double())
    assert not gradcheck(merge, (x.requires_grad_(),), fast_mode=True, raise_exception=False)


@pytest.mark.parametrize("name", CASES)
def test_an_encoder_of_float64_is_as_exact(name: str) -> None:
    case, plan = CASES[name], CASES[name].plan(1)
    weights = {key: value.double() for key, value in WEIGHTS.items()}
    spatial = scene(1)

    def features(x: Tensor) -> Tensor:
        tokens = encode(weights, x, plan, HEADS, spatial, case.method)
        assert tokens.x.dtype is torch.float64
        assert tokens.size.dtype is torch.float32  # counts, exact
        return tokens.x

    assert gradcheck(features, (images(1, 1).double().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("attend", [attention, attention_by_channel])
def test_weighed_attention_of_float64_has_an_exact_weight(attend: Callable[..., Tensor]) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = torch.tensor([[1.0, 3.0, 7.0, 2.0, 1.0]])
    weight = (q @ k.mT / 2).exp() * size.double()[:, None, None]
    exact = (weight / weight.sum(-1, keepdim=True)) @ v
    torch.testing.assert_close(attend(q, k, v, size), exact, rtol=1e-14, atol=1e-14)
