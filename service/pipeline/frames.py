"""Frames: images that are looked up in the cache, or prepared, given depth and encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
from tosa import MergePlan
from vlm import Vlm, encode, features, pixel_values


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold one image for the language model: its cached encoding, or the inputs of the encoder.

    pixels [3, S, S]; spatial [P, D] where the plan needs it, unless its depth is `to_estimate`;
    all on the CPU until they are `stacked`. tenant: whose estimates may be used, None if none may.
    """

    key: bytes
    encoded: EncodedFrame | None = None
    pixels: Tensor | None = None
    spatial: Tensor | None = None
    to_estimate: Image.Image | None = None
    tenant: str | None = None


@dataclass(frozen=True)
class EncodeOptions:
    """Hold how the images of one question are encoded.

    tenant: the key whose cached frames may be used, None without keys. remember: whether the cache is used.
    """

    plan: MergePlan
    source: Source | None
    tenant: str | None
    remember: bool


def to_frame(models: Models, image: Image.Image, options: EncodeOptions, spatial: Tensor | None) -> Frame:
    """Look an image up by everything its encoding depends on, or prepare the inputs of the encoder.

    spatial: [P, D] where it is known. Any thread may call.
    """
    vlm = models.vlm
    key = frame_key(
        image,
        plan=options.plan,
        vlm_id=vlm.id,
        revision=vlm.revision,
        image_settings=vlm.image_processor,
        dtype=vlm.dtype,
        device_type=vlm.device.type,
        depth=_depth_identity(models, options.source, spatial),
        tenant=options.tenant,
    )
    encoded = models.frames.get(key) if options.remember else None
    if encoded is not None:
        return Frame(key, encoded)
    waiting = to_wait(image) if options.source == "estimate" else None
    pixels = pixel_values(vlm, [image], device="cpu")[0]
    return Frame(key, None, pixels, spatial, waiting, (options.tenant or "") if options.remember else None)


def estimate_depth(frames: Sequence[Frame], estimation: Estimation) -> tuple[list[DepthMap], list[bool]]:
    """Estimate the depth of frames that need it; return the maps, and whether each came from the cache.

    Raises EstimatorError.
    """
    images = [frame.to_estimate for frame in frames if frame.to_estimate is not None]
    assert len(images) == len(frames), "depth_source asks for an estimate only where there is none"
    return estimation.estimate(images, [frame.tenant for frame in frames])


def attach_spatial(plan: MergePlan, frames: Sequence[Frame], depths: Sequence[DepthMap]) -> list[Frame]:
    """Return frames with the spatial tokens of their depth."""
    spatial = spatial_of(plan, depths)
    return [replace(frame, spatial=own, to_estimate=None) for frame, own in zip(frames, spatial, strict=True)]


@torch.inference_mode()
def frame_features(
    vlm: Vlm,
    plan: MergePlan,
    frames: Sequence[Frame],
    between_layers: Callable[[], None] | None = None,
) -> Tensor:
    """Return what the language model reads of frames that are not encoded: [n, N + 1, D]."""
    # An answer does not need the way back to the patches.
    pixels, spatial = stacked(vlm, frames)
    tokens = encode(vlm.tower, pixels, plan, spatial, track_source=False, between_layers=between_layers)
    return features(vlm, tokens)


def stacked(vlm: Vlm, frames: Sequence[Frame]) -> tuple[Tensor, Tensor | None]:
    """Return pixels [n, 3, S, S] and spatial tokens [n, P, D] of frames of one plan, on the model's device.

    The frames are not remembered ones, which have neither.
    """
    pixels = torch.stack([frame.pixels for frame in frames if frame.pixels is not None])
    spatial = [frame.spatial for frame in frames if frame.spatial is not None]
    assert len(pixels) == len(frames), "only frames that are not remembered are encoded"
    return pixels.to(vlm.device), torch.stack(spatial).to(vlm.device) if spatial else None


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
