"""The tokens of a batch while a ViT merges them, and the two ways back to the patch grid.

Knows nothing about how tokens are chosen or combined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Hold the residual stream and what each token stands for.

    B images, P patches at entry, N tokens now (prefix included), C channels, S spatial dimensions.
    Prefix tokens (class, registers) come first and are never merged; they are not patches, so `source`
    does not mention them although it counts them in its indices.
    """

    x: Tensor  # [B, N, C]
    size: Tensor  # [B, N] float32, patches each token stands for (1 for a prefix token)
    source: Tensor  # [B, P] int64, index of the token that holds patch p, -1 if dropped
    grid: tuple[int, int] | None  # row-major (rows, columns) while that layout still exists
    spatial: Tensor | None = None  # [B, N, S], merged along with x
    num_prefix: int = 0

    @staticmethod
    def start(x: Tensor, grid: tuple[int, int], num_prefix: int = 0, spatial: Tensor | None = None) -> Tokens:
        """Wrap the embeddings of an unmerged image: every token is itself.

        x [B, num_prefix + rows*columns, C]; spatial [B, P, S] (patches only) or [B, N, S].
        Raises ValueError when the counts do not agree.
        """
        batch, n, _ = x.shape
        patches = grid[0] * grid[1]
        if n != num_prefix + patches:
            raise ValueError(f"{n} tokens do not fit {num_prefix} prefix tokens and a grid of {grid}")
        if spatial is not None:
            spatial = _with_prefix(spatial, batch, patches, num_prefix)
        source = torch.arange(num_prefix, n, device=x.device).expand(batch, patches)
        size = torch.ones(batch, n, device=x.device)
        return Tokens(x, size, source, grid, spatial, num_prefix)


def unmerge(tokens: Tokens) -> Tensor:
    """Copy every token back to its patches: [B, P, C] in the order of the grid; dropped patches are zero."""
    index = tokens.source.clamp(min=0)[..., None].expand(-1, -1, tokens.x.shape[-1])
    patches = tokens.x.gather(1, index)
    return torch.where(tokens.source[..., None] < 0, torch.zeros_like(patches), patches)


def raster_order(tokens: Tokens) -> Tokens:
    """Sort the tokens by the first patch each one holds; prefix tokens stay first, in their order."""
    if tokens.grid is not None:
        return tokens
    (batch, n), patches, device = tokens.size.shape, tokens.source.shape[1], tokens.x.device
    # A dropped patch (-1) writes into the spare last column.
    index = torch.where(tokens.source < 0, n, tokens.source)
    patch = torch.arange(patches, device=device).expand(batch, patches)
    first = torch.full((batch, n + 1), patches, dtype=torch.int64, device=device)
    first = first.scatter_reduce(1, index, patch, "amin")[:, :n]
    prefix = torch.arange(n, device=device) < tokens.num_prefix
    order = torch.where(prefix, -1, first).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return replace(
        tokens,
        x=_take(tokens.x, order),
        size=tokens.size.gather(1, order),
        source=torch.where(tokens.source < 0, -1, rank.gather(1, tokens.source.clamp(min=0))),
        spatial=None if tokens.spatial is None else _take(tokens.spatial, order),
    )


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _with_prefix(spatial: Tensor, batch: int, patches: int, num_prefix: int) -> Tensor:
    if spatial.shape[:2] == (batch, patches + num_prefix):
        return spatial
    if spatial.shape[:2] != (batch, patches):
        raise ValueError(f"spatial tokens {tuple(spatial.shape)} do not fit {batch} x {patches} patches")
    return torch.cat([spatial.new_zeros(batch, num_prefix, spatial.shape[-1]), spatial], dim=1)
