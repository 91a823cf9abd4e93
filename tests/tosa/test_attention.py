"""Proportional attention: a merged duplicate counts as often as before, in both forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tosa import attention, attention_by_channel


def qkv(dim: int, n: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dim)
    q, k, v = torch.randn(3, 2, 3, n, dim, generator=generator)
    return q, k, v


SIZE = torch.tensor([[1.0, 2, 3, 1, 9, 1, 1, 4, 1, 1, 40]]).expand(2, -1)


@pytest.mark.parametrize("dim", [16, 24, 60, 64, 72])
def test_the_channel_form_equals_the_masked_form(dim: int) -> None:
    q, k, v = qkv(dim)
    masked, by_channel = attention(q, k, v, SIZE), attention_by_channel(q, k, v, SIZE)
    torch.testing.assert_close(by_channel, masked, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(masked, attention(q, k, v), atol=1e-2)


def test_sizes_weigh_the_keys() -> None:
    """Checked against the formula, and against the mistake of weighing the queries."""
    q, k, v = qkv(16)
    logits = q @ k.mT / 4
    by_key = (logits + SIZE.log()[:, None, None, :]).softmax(-1) @ v
    by_query = (logits + SIZE.log()[:, None, :, None]).softmax(-1) @ v
    torch.testing.assert_close(attention(q, k, v, SIZE), by_key)
    assert not torch.allclose(attention(q, k, v, SIZE), by_query, atol=1e-2)


@pytest.mark.parametrize("attend", [attention, attention_by_channel])
def test_a_token_of_size_three_is_three_tokens(attend: type) -> None:
    q, k, v = qkv(16)
    copies = torch.tensor([0, 1, 1, 1, *range(2, 11)])
    size = torch.ones(2, 11).index_fill(1, torch.tensor([1]), 3.0)
    tripled = attention(q, k[:, :, copies], v[:, :, copies])
    torch.testing.assert_close(attend(q, k, v, size), tripled, rtol=1e-5, atol=1e-5)


def test_without_sizes_it_is_plain_attention() -> None:
    q, k, v = qkv(16)
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("attend", [attention, attention_by_channel])
def test_half_precision_stays_half(attend: type) -> None:
    q, k, v = (value.bfloat16() for value in qkv(16))
    result = attend(q, k, v, SIZE)
    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result.float(), attention(*qkv(16), SIZE), rtol=0.1, atol=0.1)
