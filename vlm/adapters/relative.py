"""Relative positions under merging: the bias between two tokens is that of the places they keep."""

from __future__ import annotations

import torch
from torch import Tensor

from tosa import Tokens


def bias_between(tokens: Tokens, entry: Tensor) -> Tensor:
    """Gather the bias of the tokens there are now from that of all patches.

    entry [heads, prefix + P, prefix + P], prefix first, as queries and keys. Returns [1 or B, heads, N, N].
    A merged token has one place, that of the token which led its group; the rest of the group has no say.
    """
    if tokens.grid is not None and tokens.grid == tokens.entry_grid:
        return entry[None]
    assert tokens.position is not None, "relative positions need tokens that keep their position"
    prefix = torch.arange(tokens.num_prefix, device=entry.device)
    patches = tokens.num_prefix + tokens.position[:, tokens.num_prefix :]
    place = torch.cat([prefix.expand(len(patches), -1), patches], dim=1)  # [B, N]
    return entry[:, place[:, :, None], place[:, None, :]].transpose(0, 1)
