"""Earlier levels of an encoder beside its last one (deepstack), all with the same tokens.

A language model that takes features of several layers needs one token in each level for every placeholder.
Tokens that merge between two levels are therefore pooled into the groups that they end up in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tosa import Assignment, MergePlan, Tokens, weighted_mean
from tosa.tokens import as_cells, as_slots
from vlm.adapters import ViTAdapter
from vlm.vision import run_layers


def encode_levels(
    adapter: ViTAdapter | Any,
    pixel_values: Tensor,
    plan: MergePlan,
    layers: Sequence[int],
    spatial: Tensor | None = None,
    *,
    between_layers: Callable[[], None] | None = None,
) -> tuple[Tokens, tuple[Tensor, ...]]:
    """Encode as `encode` does, and pool what `layers` leave behind into the final tokens.

    layers: counted from 0, as in `deepstack_visual_indexes`. Returns the final tokens, and x of each level,
    [B, N, C] in the order of the final x. Only these levels are kept meanwhile. Raises VlmError, and
    ValueError for a layer that does not run.
    """
    if not set(layers) <= set(range(len(plan.steps))):
        raise ValueError(f"levels {tuple(layers)} are not all among the {len(plan.steps)} layers that run")
    kept: dict[int, Tokens] = {}

    def leaves(layer: int, tokens: Tokens) -> None:
        if layer in layers:
            kept[layer] = tokens

    final = run_layers(adapter, pixel_values, plan, spatial, leaves=leaves, between_layers=between_layers)
    return final, tuple(pool_into(kept[layer], final) for layer in layers)


def pool_into(level: Tokens, final: Tokens) -> Tensor:
    """Average the tokens of an earlier level over the groups they end up in, weighted by size: as final.x.

    Slot by slot, where patches merge in cells. A token that merges no more comes out bit-equal; one that is
    dropped later on counts nowhere; a final token that holds nothing (a centroid that none chose) gets the
    features of the token that held its place. Raises ValueError when sources were not tracked.
    """
    if level.grid is not None and level.grid == final.grid:
        return level.x
    if level.source.shape[1] == 0 or final.source.shape[1] == 0 or final.position is None:
        raise ValueError("pooling levels needs tokens that know their patches and their places")
    cells = as_cells(level)
    dest, size, survivor = _groups(level, final, final.position)
    groups = Assignment(dest, final.size.shape[1], survivor)
    return as_slots(replace(cells, x=weighted_mean(cells.x, size, groups))).x


def _groups(level: Tokens, final: Tokens, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the tokens of a level: where each ends up, the cells it still stands for, and who leads."""
    (batch, n), prefix, device = level.size.shape, level.num_prefix, level.x.device
    # A cell that was dropped by now writes into the spare last column.
    lives = final.source >= 0
    token = torch.where(lives, level.source, n)
    # A token that is dropped, or holds nothing, joins a group that is not empty, with a weight of 0.
    anywhere = final.source.amax(dim=1, keepdim=True).repeat(1, n + 1)
    dest = anywhere.scatter(1, token, final.source.clamp(min=0))[:, prefix:n]
    cells = torch.zeros(batch, n + 1, device=device).scatter_add(1, token, lives.float())[:, prefix:n]
    own = torch.arange(prefix, device=device).expand(batch, -1)
    survivor = level.source.clamp(min=0).gather(1, place[:, prefix:])
    return (
        torch.cat([own, dest], dim=1),
        torch.cat([torch.ones_like(own, dtype=cells.dtype), cells], dim=1),
        torch.cat([own, survivor], dim=1),
    )
