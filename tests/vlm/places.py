"""Tokens that have places, and that attention of a family goes by those and not by their order."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.vlm.adapters import tiny
from tosa import Tokens
from vlm import adapt


def tokens_of(name: str, **changes: object) -> Tokens:
    """Random tokens as they enter the blocks of a family."""
    shape = adapt(tiny(name)).shape
    n = shape.num_prefix + shape.patches
    x = torch.randn(2, n, shape.hidden_size, generator=torch.Generator().manual_seed(4))
    return replace(Tokens.start(x, shape.grid, shape.num_prefix, track_position=True), **changes)


@torch.inference_mode()
def require_own_places(name: str) -> None:
    """Shuffle tokens with their places: results are shuffled alike, and differ with other places."""
    adapter, tokens = adapt(tiny(name)), tokens_of(name)
    prefix = torch.arange(tokens.num_prefix)
    shuffle = torch.randperm(36, generator=torch.Generator().manual_seed(5))
    order = torch.cat([prefix, tokens.num_prefix + shuffle])
    position = torch.cat([0 * prefix, shuffle]).expand(2, -1)
    shuffled = replace(tokens, x=tokens.x[:, order], grid=None, position=position)
    misplaced = replace(shuffled, position=position.roll(1, dims=1))
    for block in adapter.blocks:
        attended, keys = block.attend(tokens.x, tokens, None)
        attended_shuffled, keys_shuffled = block.attend(shuffled.x, shuffled, None)
        torch.testing.assert_close(attended_shuffled, attended[:, order], rtol=0, atol=1e-5)
        torch.testing.assert_close(keys_shuffled, keys[:, :, order], rtol=0, atol=1e-5)
        attended_misplaced, keys_misplaced = block.attend(shuffled.x, misplaced, None)
        assert not torch.allclose(attended_misplaced, attended[:, order], rtol=0, atol=1e-4)
        assert torch.equal(keys_misplaced, keys_shuffled)  # content, not place
