"""Relative positions under merging: the bias of two tokens is that of the places they keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.vlm.adapters import FAMILIES, pixels_for, tiny
from tests.vlm.places import require_own_places, tokens_of
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import adapt, encode, tosa_encode
from vlm.adapters.relative import bias_between

RELATIVE = [name for name in FAMILIES if adapt(tiny(name)).relative]
MERGING = [name for name, method in METHODS.items() if method.merges]


def test_the_families_with_relative_positions_are_known() -> None:
    assert set(RELATIVE) == {"hf beit", "hf beit shared", "timm beit", "timm beit shared"}


@pytest.mark.parametrize("name", RELATIVE)
def test_tokens_in_any_order_are_biased_by_their_own_place(name: str) -> None:
    require_own_places(name)


@pytest.mark.parametrize("name", RELATIVE)
@torch.inference_mode()
def test_sizes_weigh_on_top_of_the_bias(name: str) -> None:
    """A token that stands for three patches at its place attends as three copies of it would."""
    adapter, tokens = adapt(tiny(name)), tokens_of(name)
    copies = torch.cat([torch.arange(37), torch.tensor([9, 9])])
    position = (copies - 1).clamp(min=0).expand(2, -1)
    copied = replace(tokens, x=tokens.x[:, copies], grid=None, position=position)
    size = torch.ones(2, 37)
    size[:, 9] = 3
    merged = replace(tokens, grid=None)
    for block in adapter.blocks:
        ours, _ = block.attend(merged.x, merged, size)
        theirs, _ = block.attend(copied.x, copied, None)
        torch.testing.assert_close(ours, theirs[:, :37], rtol=0, atol=1e-5)


def test_the_bias_of_merged_tokens_is_that_of_their_places() -> None:
    entry = torch.arange(2 * 37 * 37).view(2, 37, 37)  # 2 heads, a class token, 36 patches
    survivors = torch.tensor([[3, 35, 0], [7, 7, 12]])
    position = torch.cat([torch.zeros(2, 1, dtype=torch.int64), survivors], dim=1)
    tokens = replace(
        Tokens.start(torch.zeros(2, 37, 4), (6, 6), 1, track_position=True), grid=None, position=position
    )
    bias = bias_between(tokens, entry)
    assert bias.shape == (2, 2, 4, 4)
    for image in range(2):
        places = [0, *(1 + survivors[image])]
        for head in range(2):
            expected = [[entry[head, query, key] for key in places] for query in places]
            assert torch.equal(bias[image, head], torch.tensor(expected))


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("method", MERGING)
@torch.inference_mode()
def test_every_token_keeps_the_place_of_a_patch(name: str, method: str) -> None:
    adapter = adapt(tiny(name))
    plan = make_plan(MergeSpec(method, keep_ratio=0.5), adapter.shape)
    tokens = encode(adapter, pixels_for(name), plan, torch.ones(2, 36, 4))
    assert tokens.position is not None
    assert tokens.position.shape == tokens.size.shape
    for position, source in zip(tokens.position[:, 1:], tokens.source, strict=True):
        assert len(set(position.tolist())) == len(position)
        if method != "expedite":  # whose centroids lie in the middle of cells, whatever chose them
            assert torch.equal(source[position], torch.arange(1, 1 + len(position)))


@pytest.mark.parametrize("name", RELATIVE)
@torch.inference_mode()
def test_a_plan_that_merges_nothing_equals_the_library(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    tokens = tosa_encode(model, pixels, MergeSpec("tome", keep_ratio=1.0))
    torch.testing.assert_close(tokens.x, FAMILIES[name].forward(model, pixels), rtol=0, atol=1e-5)
