"""From pictures to what the language model reads of them, for every family: lay out, plan, encode, reduce.

A layout follows from the size of a picture alone, and the plan, the number of tokens and the prompt from the
layout: all of it is known before a picture is decoded and before the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from tosa import EncoderShape, MergePlan, MergeSpec, Tokens, make_plan
from vlm.deepstack import encode_levels
from vlm.families.layout import Layout, Saving, Size, Spelled, Views, Visual
from vlm.model import Vlm
from vlm.vision import encode


@dataclass(frozen=True, eq=False)
class Encoded:
    """Hold the tokens of views behind the tower, and of earlier layers that the language model reads too."""

    tokens: Tokens
    levels: tuple[Tensor, ...] = ()


def layouts(vlm: Vlm, sizes: Sequence[Size], views: Views | None = None) -> tuple[Layout, ...]:
    """Lay out the pictures of one prompt by their (height, width) in px; a video is one layout of all frames.

    views: "auto" as the checkpoint's own processor makes them, "single", "anyres" or "video"; by default what
    the checkpoint was trained on. Raises VlmError (unsupported_views) for what the family does not have.
    """
    return vlm.family.layouts(sizes, vlm.default_views if views is None else views)


def shape_of(vlm: Vlm, layout: Layout) -> EncoderShape:
    """Describe the tower for the views of a layout, as `make_plan` needs it."""
    return vlm.family.shape(layout)


def view_pixels(vlm: Vlm, images: Sequence[Image.Image], layout: Layout) -> Tensor:
    """Return the tower's inputs for one picture, or the frames of one video: [views, ...] on the CPU.

    In the model's dtype. Raises ValueError for images of another size than the layout's.
    """
    if len(images) != layout.num_frames:
        raise ValueError(f"the layout has {layout.num_frames} pictures, got {len(images)}")
    if layout.kind != "video" and images[0].size != (layout.size[1], layout.size[0]):
        raise ValueError(f"the layout is for {layout.size} (height, width), got {images[0].size[::-1]}")
    return vlm.family.pixels(images, layout).to(vlm.dtype)


def plan_views(vlm: Vlm, spec: MergeSpec, layout: Layout) -> MergePlan:
    """Plan the merging of the views of a layout.

    Raises PlanError, and VlmError (unsupported_views); also for what no language engine elsewhere could be
    told, where the language model was left out.
    """
    if vlm.parts == "vision":
        vlm.family.require_sendable(layout)
    return make_plan(spec, vlm.family.shape(layout))


def spell(vlm: Vlm, layout: Layout, plan: MergePlan) -> Spelled:
    """Write what the placeholder of a picture or video becomes in the prompt, with its visual tokens."""
    return vlm.family.spell(layout, vlm.family.counts(layout, plan))


def saves(vlm: Vlm, layout: Layout, plan: MergePlan) -> tuple[Saving, ...]:
    """Say what a plan saves: "vit" for work in the tower, "lm" for tokens of the language model."""
    return vlm.family.saves(layout, plan)


def encode_views(
    vlm: Vlm,
    layout: Layout | Sequence[Layout],
    pixels: Tensor,
    plan: MergePlan,
    spatial: Tensor | None = None,
    *,
    track_source: bool = False,
    between_layers: Callable[[], None] | None = None,
) -> Encoded:
    """Run the tower over views of one grid, those of several pictures together if they share a plan.

    layout: of each picture, or of the only one. pixels: [views, ...]. spatial: [views, P, S] on the grid of
    patches, for methods that need it. track_source: follow every patch to its token, also where no step needs
    to know.
    """
    every = (layout,) if isinstance(layout, Layout) else layout
    adapter, levels = vlm.family.adapter(vlm.core, every[0]), vlm.family.level_layers(vlm.core)
    if levels:
        return Encoded(*encode_levels(adapter, pixels, plan, levels, spatial, between_layers=between_layers))
    track_source = track_source or any(vlm.family.recovers(each, plan) for each in every)
    tokens = encode(adapter, pixels, plan, spatial, track_source=track_source, between_layers=between_layers)
    return Encoded(tokens)


@torch.inference_mode()
def reduce_views(vlm: Vlm, layouts: Sequence[Layout], plan: MergePlan, encoded: Encoded) -> list[Visual]:
    """Make what the language model reads of each picture or video, from the tokens of all together."""
    visuals = vlm.family.reduce(vlm.core, layouts, plan, encoded.tokens, encoded.levels)
    if not encoded.tokens.source.shape[1]:
        return visuals
    sources = torch.split(encoded.tokens.source, [len(layout.views) for layout in layouts])
    return [_followed(vlm, *one) for one in zip(layouts, visuals, sources, strict=True)]


def _followed(vlm: Vlm, layout: Layout, visual: Visual, sources: Tensor) -> Visual:
    """Say which row of features holds each patch, where the family knows."""
    patches = vlm.family.patch_rows(layout, sources[0]) if len(sources) == 1 else None
    return visual if patches is None else replace(visual, patches=patches)


@torch.inference_mode()
def visual_of(
    vlm: Vlm,
    images: Sequence[Image.Image],
    layout: Layout,
    plan: MergePlan,
    spatial: Tensor | None = None,
) -> Visual:
    """Take one picture, or the frames of one video, through the tower and the reducer."""
    pixels = view_pixels(vlm, images, layout).to(vlm.device)
    spatial = None if spatial is None else spatial.to(vlm.device)
    encoded = encode_views(vlm, layout, pixels, plan, spatial)
    return reduce_views(vlm, [layout], plan, encoded)[0]
