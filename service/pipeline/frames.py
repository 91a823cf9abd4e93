"""Frames: pictures and videos that are looked up in the cache, or prepared, given depth and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from depth import DepthMap
from service.pipeline.depth_source import Source, spatial_of
from service.pipeline.estimation import Estimation, to_wait
from service.pipeline.frame_cache import EncodedFrame
from service.pipeline.frame_keys import (
    DepthIdentity,
    DepthKind,
    estimate_digest,
    frame_key,
    spatial_digest,
)
from service.pipeline.models import Models
from service.pipeline.planning import Planned
from vlm import ImageSettings, Layout, Visual, Vlm, encode_views, reduce_views, view_pixels

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold one picture or video for the language model: its cached encoding, or the inputs of the encoder.

    pixels [views, ...], as the tower takes them; spatial [views, P, D] where the plan needs it, unless its
    depth is `to_estimate`, of every picture; all on the CPU until they are `joined`. tenant: whose estimates
    may be used, None if none may. follows: its encoding has to say where every patch is.
    """

    key: bytes
    planned: Planned
    encoded: EncodedFrame | None = None
    pixels: Tensor | None = None
    spatial: Tensor | None = None
    to_estimate: tuple[Image.Image, ...] = ()
    tenant: str | None = None
    follows: bool = False


@dataclass(frozen=True)
class EncodeOptions:
    """Hold how the pictures of one question are encoded.

    tenant: the key whose cached frames may be used, None without keys. remember: whether the cache is used.
    follows: patches are followed to their tokens, for merging across frames.
    """

    source: Source | None
    tenant: str | None
    remember: bool
    follows: bool = False


def to_frame(
    models: Models,
    images: Sequence[Image.Image],
    planned: Planned,
    options: EncodeOptions,
    spatial: Tensor | None,
) -> Frame:
    """Look a picture or video up by everything its encoding depends on, or prepare the encoder's inputs.

    images: the picture, or the frames of the video. spatial: [views, P, D] where it is known. Any thread may
    call.
    """
    vlm = models.vlm
    key = frame_key(
        images,
        layout=planned.layout,
        plan=planned.plan,
        vlm_id=vlm.id,
        revision=vlm.revision,
        processing=_processing(vlm, planned.layout),
        dtype=vlm.dtype,
        device_type=vlm.device.type,
        depth=_depth_identity(models, options.source, spatial),
        tenant=options.tenant,
        follows=options.follows,
    )
    encoded = models.frames.get(key) if options.remember else None
    if encoded is not None:
        return Frame(key, planned, encoded, follows=options.follows)
    waiting = tuple(map(to_wait, images)) if options.source == "estimate" else ()
    pixels = view_pixels(vlm, images, planned.layout)
    tenant = (options.tenant or "") if options.remember else None
    return Frame(key, planned, None, pixels, spatial, waiting, tenant, options.follows)


def estimate_depth(
    frames: Sequence[Frame], estimation: Estimation
) -> tuple[list[list[DepthMap]], list[list[bool]]]:
    """Estimate the depth of frames that need it; return the maps of each frame's pictures, and whether each
    came from the cache.

    Raises EstimatorError.
    """
    images = [image for frame in frames for image in frame.to_estimate]
    assert all(frame.to_estimate for frame in frames), "depth_source asks for an estimate where there is none"
    depths, known = estimation.estimate(images, [f.tenant for f in frames for _ in f.to_estimate])
    counts = [len(frame.to_estimate) for frame in frames]
    return list(_split(depths, counts)), list(_split(known, counts))


def attach_spatial(frames: Sequence[Frame], depths: Sequence[Sequence[DepthMap]]) -> list[Frame]:
    """Return frames with the spatial tokens of the depth of their pictures."""
    return [
        replace(frame, spatial=spatial_of(frame.planned, own), to_estimate=())
        for frame, own in zip(frames, depths, strict=True)
    ]


@torch.inference_mode()
def frame_visuals(
    vlm: Vlm, frames: Sequence[Frame], between_layers: Callable[[], None] | None = None
) -> list[Visual]:
    """Return what the language model reads of frames that are not encoded and share a plan."""
    plan, layouts = frames[0].planned.plan, [frame.planned.layout for frame in frames]
    pixels, spatial = joined(vlm, frames)
    # An answer does not need the way back to the patches, unless frames are merged by place.
    follows = any(frame.follows for frame in frames)
    encoded = encode_views(
        vlm, layouts, pixels, plan, spatial, track_source=follows, between_layers=between_layers
    )
    visuals = reduce_views(vlm, layouts, plan, encoded)
    return [
        visual if frame.follows else replace(visual, patches=None)
        for visual, frame in zip(visuals, frames, strict=True)
    ]


def joined(vlm: Vlm, frames: Sequence[Frame]) -> tuple[Tensor, Tensor | None]:
    """Return pixels [views, ...] and spatial tokens [views, P, D] of frames of one plan, on the device.

    The frames are not remembered ones, which have neither.
    """
    pixels = [frame.pixels for frame in frames if frame.pixels is not None]
    spatial = [frame.spatial for frame in frames if frame.spatial is not None]
    assert len(pixels) == len(frames), "only frames that are not remembered are encoded"
    return torch.cat(pixels).to(vlm.device), torch.cat(spatial).to(vlm.device) if spatial else None


def _processing(vlm: Vlm, layout: Layout) -> ImageSettings | str:
    """Return what the pixels of a view depend on beside the picture; for whole views without a processor."""
    return vlm.image_processor if layout.kind == "single" else vlm.family.processing


def _split(items: Sequence[Item], counts: Sequence[int]) -> Iterator[list[Item]]:
    rest = iter(items)
    for count in counts:
        yield [next(rest) for _ in range(count)]


def _depth_identity(models: Models, source: Source | None, spatial: Tensor | None) -> DepthIdentity | None:
    match source:
        case "client":
            assert spatial is not None, "the client's depth has been read"
            return DepthIdentity(DepthKind.CLIENT, spatial_digest(spatial))
        case "none":
            return DepthIdentity(DepthKind.POSITION)
        case "estimate":
            loaded = models.estimation
            digest = None if loaded is None else estimate_digest(loaded.estimator)
            return DepthIdentity(DepthKind.ESTIMATE, digest)
    return None
