"""The request, one direction: every stage takes the previous stage's value and returns the next.

`prepare` runs in a decoding thread, `infer` in the model thread, `respond` anywhere. Nothing is kept between
requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from depth import DepthMap, check_alignment, decode_depth, depth_codes
from service.errors import ApiError
from service.images import decode_image
from service.schemas import VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import METHODS, MergePlan, Tokens, make_plan, spatial_tokens
from vlm import (
    Generation,
    GenerationParams,
    Vlm,
    encode,
    features,
    generate,
    pixel_values,
    prefill,
    prompt_ids,
    settle,
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Hold a request that can no longer be refused for its inputs, ready for the model."""

    question: str
    params: GenerationParams
    plan: MergePlan
    pixels: Tensor  # [n, 3, S, S], one view per image
    spatial: Tensor | None  # [n, P, D], only for methods that need it
    depth: dict[str, Any] | None


@dataclass(frozen=True, eq=False)
class Inferred:
    """Hold what the model said and how many tokens it read."""

    generation: Generation
    prompt_tokens: int


def prepare(vlm: Vlm, asked: VqaRequest, settings: Settings, timer: StageTimer) -> Prepared:
    """Decode the files, plan the merging, make the model's inputs. Raises ApiError, DepthError, PlanError."""
    images = [decode_image(data, settings.max_image_px) for data in asked.images]
    depths = _decode_depths(asked, [(image.height, image.width) for image in images], settings)
    timer.mark("decode")

    plan = make_plan(asked.fields.merge_spec(has_depth=bool(depths)), vlm.shape)
    needs_depth = METHODS[plan.method].needs_spatial
    if needs_depth and not depths:
        raise ApiError("depth_required", field="depth", choices=_methods_without_depth())
    pixels = pixel_values(vlm, images)
    timer.mark("preprocess")

    spatial = used = None
    if needs_depth:
        spatial, used = _spatial(vlm, depths), _depth_used(depths)
        timer.mark("depth")
    return Prepared(asked.fields.question, asked.fields.generation_params(), plan, pixels, spatial, used)


@torch.inference_mode()
def see(vlm: Vlm, prepared: Prepared) -> Tokens:
    """Encode the images, merging as planned."""
    return encode(vlm.tower, prepared.pixels, prepared.plan, prepared.spatial)


@torch.inference_mode()
def infer(vlm: Vlm, prepared: Prepared, timer: StageTimer) -> Inferred:
    """Encode with merging, read the prompt, decode the answer. Raises VlmError."""
    tokens = see(vlm, prepared)
    settle(vlm.device)
    timer.mark("vision")

    counts = [prepared.plan.tokens_out] * len(prepared.pixels)
    read = prefill(vlm, prompt_ids(vlm, prepared.question, counts), features(vlm, tokens))
    settle(vlm.device)
    timer.mark("prefill")

    generation = generate(vlm, read, prepared.params)
    timer.mark("generate")
    return Inferred(generation, read.prompt_tokens)


def respond(
    vlm: Vlm, prepared: Prepared, inferred: Inferred, timer: StageTimer, request_id: str
) -> dict[str, Any]:
    """Return the answer and what happened, as schemas.VqaResponse describes it."""
    return {
        "answer": inferred.generation.text,
        "request_id": request_id,
        "model": {"id": public_id(vlm), "revision": vlm.revision},
        "merge": merge_done(prepared.plan, len(prepared.pixels)),
        "depth": prepared.depth,
        "usage": {
            "prompt_tokens": inferred.prompt_tokens,
            "completion_tokens": len(inferred.generation.token_ids),
        },
        "timings_ms": timer.timings_ms(),
    }


def merge_done(plan: MergePlan, num_images: int) -> dict[str, Any]:
    """Return what merging did to `num_images` images; r and alpha only where they acted."""
    spec = plan.spec
    done = {
        "method": plan.method,
        "keep_ratio": spec.keep_ratio or round(plan.tokens_out / plan.tokens_in, 6),
        "tokens_in": plan.tokens_in * num_images,
        "tokens_out": plan.tokens_out * num_images,
        "vit_flops_ratio": round(plan.flops_ratio, 4),
        "prop_attn": plan.prop_attn,
    }
    if spec.r is not None:
        done["r"] = spec.r
    if METHODS[plan.method].needs_spatial:
        done["alpha"] = spec.alpha
    return done


def public_id(vlm: Vlm) -> str:
    """Return the model's name; of a local folder only its last part, since paths are nobody's business."""
    is_path = vlm.id.startswith(("/", ".", "~")) or vlm.id.count("/") > 1
    return vlm.id.rstrip("/").rsplit("/", 1)[-1] if is_path else vlm.id


def _decode_depths(
    asked: VqaRequest, shapes: Sequence[tuple[int, int]], settings: Settings
) -> list[DepthMap]:
    """Decode what was sent even if the method will not use it: a bad file is an error, never ignored."""
    depths = [
        decode_depth(data, scale=asked.fields.depth_scale, max_pixels=settings.max_image_px)
        for data in asked.depths
    ]
    for depth, shape in zip(depths, shapes, strict=False):
        check_alignment(depth, shape)
    return depths


def _spatial(vlm: Vlm, depths: Sequence[DepthMap]) -> Tensor:
    """Return [n, P, D]: the code of (row, column, depth) of every patch."""
    grid = vlm.shape.grid
    z = torch.stack([depth_codes(depth, grid, levels=grid[0]) for depth in depths])
    return spatial_tokens(z).to(vlm.device)


def _depth_used(depths: Sequence[DepthMap]) -> dict[str, Any]:
    valid_ratio = sum(depth.valid_ratio for depth in depths) / len(depths)
    return {"source": "client", "kind": depths[0].kind, "valid_ratio": round(valid_ratio, 4)}


def _methods_without_depth() -> list[str]:
    return [name for name, method in METHODS.items() if not method.needs_spatial]
