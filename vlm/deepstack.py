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
    cells, prefix = as_cells(level), level.num_prefix
    batch, n = level.size.shape
    # A token that is dropped, or holds nothing, joins some group with a weight of 0.
    dest = final.source.amax(dim=1, keepdim=True).repeat(1, n + 1)
    # A patch that was dropped by now writes into the spare last column.
    token = torch.where(level.source < 0, n, level.source)
    lives = final.source >= 0
    dest = dest.scatter(1, torch.where(lives, token, n), final.source.clamp(min=0))[:, :n]
    own = torch.arange(prefix, device=dest.device).expand(batch, -1)
    dest = torch.cat([own, dest[:, prefix:]], dim=1)
    counted = torch.zeros(batch, n + 1, device=dest.device)
    counted = counted.scatter_add(
        1, torch.where(lives, token, n), torch.ones_like(counted[:, :1]).expand_as(token)
    )
    size = torch.cat([torch.ones_like(counted[:, :prefix]), counted[:, prefix:n]], dim=1)
    survivor = token.gather(1, final.position[:, prefix:])
    groups = Assignment(dest, final.size.shape[1], torch.cat([own, survivor], dim=1))
    return as_slots(replace(cells, x=weighted_mean(cells.x, size, groups))).x
