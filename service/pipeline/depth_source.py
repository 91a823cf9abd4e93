"""Choose the depth that guides the merging of a request, and make spatial tokens of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from depth import DepthMap, DepthReport, check_alignment, depth_codes, read_depth
from service.errors import ServiceError
from service.request.schemas import VqaRequest
from service.settings import Settings
from tosa import METHODS, MergePlan, position_tokens, spatial_tokens

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


def spatial_for(plan: MergePlan, source: Source | None, depth: DepthMap | None) -> Tensor | None:
    """Return the spatial tokens [P, S] of one image, as far as they are known before an estimate."""
    if source == "client":
        assert depth is not None, "one depth map came with each image"
        return spatial_of(plan, [depth])[0]
    return spatial_without_depth(plan)[0] if source == "none" else None


def spatial_of(plan: MergePlan, depths: Sequence[DepthMap]) -> Tensor:
    """Return [n, P, S]: the code of (row, column, depth) of every patch."""
    grid = plan.shape.grid
    z = torch.stack([depth_codes(depth, grid, levels=grid[0]) for depth in depths])
    return spatial_tokens(z, kernel=plan.spec.spatial_kernel, levels=grid[0])


def spatial_without_depth(plan: MergePlan) -> Tensor:
    """Return [1, P, S]: the code of (row, column) of every patch."""
    return position_tokens(plan.shape.grid, 1, plan.spec.spatial_kernel)


def _depth_required(plan: MergePlan) -> ServiceError:
    reason = "" if METHODS[plan.method].needs_spatial else "option"
    without = [name for name, method in METHODS.items() if not method.needs_spatial]
    return ServiceError("depth_required", reason=reason, field="depth", choices=without)
