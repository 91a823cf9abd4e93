"""The language model is driven in the words of the installed transformers, old or new."""

import pytest
from torch import Tensor, nn

from vlm.language import cache_argument


class Old(nn.Module):
    def forward(self, past_key_values: Tensor) -> Tensor:
        return past_key_values


class New(nn.Module):
    def forward(self, cache: Tensor) -> Tensor:
        return cache


@pytest.mark.parametrize(("model", "name"), [(Old, "past_key_values"), (New, "cache")])
def test_the_cache_goes_by_the_name_that_the_model_gives_it(model: type[nn.Module], name: str) -> None:
    assert cache_argument(model) == name
