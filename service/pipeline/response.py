"""Make the response from an inference."""

from __future__ import annotations

from typing import Any

from service.pipeline.model_names import public_id
from service.pipeline.prepare import Inferred, Prepared
from service.pipeline.response_models import MergeDone, ModelUsed, Usage, VqaResponse
from service.timing import StageTimer
from tosa import METHODS, MergePlan
from vlm import Vlm


def respond(
    vlm: Vlm, prepared: Prepared, inferred: Inferred, timer: StageTimer, request_id: str
) -> VqaResponse:
    """Return the response of a question."""
    return VqaResponse(
        answer=inferred.text,
        request_id=request_id,
        model=model_used(vlm),
        merge=merge_done(prepared.plan, len(prepared.frames)),
        depth=inferred.depth,
        usage=Usage(prompt_tokens=inferred.prompt_tokens, completion_tokens=inferred.completion_tokens),
        finish_reason=inferred.finish_reason,
        cached=inferred.cached,
        batch_size=inferred.batch_size,
        timings_ms=timer.timings_ms(),
    )


def model_used(vlm: Vlm) -> ModelUsed:
    """Name the model that answers."""
    return ModelUsed(id=public_id(vlm.id), revision=vlm.revision)


def merge_done(plan: MergePlan, num_images: int) -> MergeDone:
    """Describe the merging of `num_images` images; optional fields are set only where they had an effect."""
    spec, method = plan.spec, METHODS[plan.method]
    chooses_layers = spec.layers is not None or (method.merges and method.layers != "all")
    acted: dict[str, Any] = {
        "r": spec.r,
        "r_hw": spec.r_hw,
        "layers": [step.layer for step in plan.steps if step] if chooses_layers else None,
        "alpha": spec.alpha if method.needs_spatial else None,
        "spatial_kernel": spec.spatial_kernel if plan.needs_spatial else None,
        "options": None if plan.options is None else dict(vars(plan.options)),
    }
    return MergeDone(
        method=plan.method,
        keep_ratio=round(plan.keep_ratio, 6),
        tokens_in=plan.tokens_in * num_images,
        tokens_out=plan.tokens_out * num_images,
        vit_flops_ratio=round(plan.flops_ratio, 4),
        prop_attn=plan.prop_attn,
        **{name: value for name, value in acted.items() if value is not None},
    )
