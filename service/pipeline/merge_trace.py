"""Run the encoder alone and follow which patches become one token, layer by layer. Model thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from depth import DepthMap
from service.errors import ServiceError
from service.pipeline.frames import Frame, attach_spatial, estimate_depth, joined
from service.pipeline.models import Models
from service.pipeline.prepare import Prepared
from tosa import Tokens
from vlm import encode
from vlm.vision import run_layers


@dataclass(frozen=True, eq=False)
class MergeTrace:
    """Hold what merging did to the views of a picture.

    sources: after every layer, the token of each patch or cell, [views, P] int64 on the CPU, -1 where it was
    dropped. depth: estimated for the merging, None where nothing was estimated. is_remembered: that estimate
    was in the cache.
    """

    sources: tuple[Tensor, ...]
    grid: tuple[int, int]
    depth: DepthMap | None = None
    is_remembered: bool = False


@torch.inference_mode()
def see(models: Models, prepared: Prepared, trace: list[Tokens] | None = None) -> Tokens:
    """Encode the views to visualise the merging; `trace` receives the tokens after every layer.

    The frames share a plan: views of one picture do, and single views of several.
    """
    frames, _, _ = _with_depth(models, prepared)
    vlm, planned = models.vlm, frames[0].planned
    pixels, spatial = joined(vlm, frames)
    adapter = vlm.family.adapter(vlm.core, planned.layout)
    return encode(adapter, pixels, planned.plan, spatial, trace=trace)


@torch.inference_mode()
def trace_merging(
    models: Models, prepared: Prepared, between_layers: Callable[[], None] | None = None
) -> MergeTrace:
    """Encode the views of one picture, and keep of every layer only where the patches went.

    between_layers: called before every layer, and may raise to stop. Raises ServiceError (numerical_error),
    EstimatorError.
    """
    frames, depths, is_remembered = _with_depth(models, prepared)
    vlm, planned, sources = models.vlm, frames[0].planned, list[Tensor]()
    pixels, spatial = joined(vlm, frames)
    tokens = run_layers(
        vlm.family.adapter(vlm.core, planned.layout),
        pixels,
        planned.plan,
        spatial,
        leaves=lambda _, left: sources.append(left.source),
        between_layers=between_layers,
    )
    if not bool(torch.isfinite(tokens.x).all()):
        raise ServiceError("numerical_error")
    assert tokens.entry_grid is not None, "tokens of views begin on a grid"
    on_cpu = tuple(source.cpu() for source in sources)
    return MergeTrace(on_cpu, tokens.entry_grid, depths[0] if depths else None, is_remembered)


def _with_depth(models: Models, prepared: Prepared) -> tuple[Sequence[Frame], list[DepthMap], bool]:
    """Return frames with their spatial tokens, and what had to be estimated for them."""
    frames: Sequence[Frame] = prepared.frames
    if prepared.source != "estimate":
        return frames, [], False
    assert models.estimation is not None, "depth_source asks for an estimate only of an estimator"
    depths, known = estimate_depth(frames, models.estimation)
    ready = attach_spatial(frames, depths)
    return ready, [depth for own in depths for depth in own], all(hit for own in known for hit in own)
