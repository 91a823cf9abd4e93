"""Choose the depth that guides the merging of a request, and make spatial tokens of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from depth import DepthMap, DepthReport, check_alignment, depth_codes, read_depth
from service.errors import ServiceError
from service.pipeline.planning import Planned
from service.request.schemas import VqaRequest
from service.settings import Settings
from tosa import METHODS, MergePlan, position_tokens, spatial_tokens
from vlm import View

Source = Literal["client", "estimate", "none"]


def depth_source(request: VqaRequest, plan: MergePlan, settings: Settings) -> Source | None:
    """Return the source of depth; None if the plan needs no spatial tokens. Raises ServiceError."""
    if not plan.needs_spatial:
        return None
    if request.fields.depth is not None:
        return request.fields.depth
    if request.depths:
        return "client"
    if settings.estimates_depth:
        return "estimate"
    raise _depth_required(plan)


def read_depth_of(
    request: VqaRequest, at: int, image: Image.Image, settings: Settings
) -> tuple[DepthMap, DepthReport] | None:
    """Read the depth that was sent with an image, None if none was.

    Read even if it will not be used: a bad file is an error, never ignored. Raises DepthError.
    """
    if not request.depths:
        return None
    options = request.fields.format_options()
    depth, report = read_depth(request.depths[at], max_pixels=settings.max_image_px, **options)
    check_alignment(depth, (image.height, image.width))
    return depth, report


def spatial_for(planned: Planned, source: Source | None, depths: Sequence[DepthMap]) -> Tensor | None:
    """Return the spatial tokens [views, P, S], as far as they are known before an estimate.

    depths: of the picture, or of every frame of the video, where they were sent.
    """
    if source == "client":
        return spatial_of(planned, depths)
    return spatial_without_depth(planned) if source == "none" else None


def spatial_of(planned: Planned, depths: Sequence[DepthMap]) -> Tensor:
    """Return [views, P, S]: the code of (row, column, depth) of every patch of every view.

    A view of several frames of a video gets the depth of the first one.
    """
    plan, codes = planned.plan, [_codes(planned, view, depths) for view in planned.layout.views]
    return spatial_tokens(torch.stack(codes), kernel=plan.spec.spatial_kernel, levels=plan.shape.grid[0])


def spatial_without_depth(planned: Planned) -> Tensor:
    """Return [views, P, S]: the code of (row, column) of every patch of every view."""
    plan = planned.plan
    return position_tokens(plan.shape.grid, len(planned.layout.views), plan.spec.spatial_kernel)


def _codes(planned: Planned, view: View, depths: Sequence[DepthMap]) -> Tensor:
    grid = planned.plan.shape.grid
    return depth_codes(depths[view.frames[0]], grid, levels=grid[0], box=astuple(view.box))


def _depth_required(plan: MergePlan) -> ServiceError:
    reason = "" if METHODS[plan.method].needs_spatial else "option"
    without = [name for name, method in METHODS.items() if not method.needs_spatial]
    return ServiceError("depth_required", reason=reason, field="depth", choices=without)
