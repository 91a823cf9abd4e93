"""Make the response from an inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from service.pipeline.model_names import public_id
from service.pipeline.planning import Planned
from service.pipeline.prepare import Inferred, Prepared
from service.pipeline.response_models import MergeDone, ModelUsed, Usage, ViewsUsed, VqaResponse
from service.timing import StageTimer
from tosa import METHODS, MergeSpec, make_plan
from vlm import Vlm


def respond(
    vlm: Vlm, prepared: Prepared, inferred: Inferred, timer: StageTimer, request_id: str
) -> VqaResponse:
    """Return the response of a question. The way of the answer from the model's thread is timed too."""
    remembered = prepared.episode
    planned = [frame.planned for frame in prepared.frames] if remembered is None else remembered.planned
    merge = merge_done(planned, prepared.because)
    views = [_views(own) for own in planned]
    timer.mark("generate")
    confidence = confidence_of(inferred)
    only_if_asked: dict[str, Any] = {} if confidence is None else {"confidence": confidence}
    if remembered is not None:
        only_if_asked["episode"] = remembered.used_by(inferred.attention)
    return VqaResponse(
        answer=inferred.text,
        request_id=request_id,
        model=model_used(vlm),
        merge=merge,
        views=views,
        depth=inferred.depth,
        usage=Usage(prompt_tokens=inferred.prompt_tokens, completion_tokens=inferred.completion_tokens),
        finish_reason=inferred.finish_reason,
        cached=inferred.cached,
        batch_size=inferred.batch_size,
        timings_ms=timer.timings_ms(),
        **only_if_asked,
    )


def confidence_of(inferred: Inferred) -> float | None:
    """Return the probability of the first answer, None where it was not asked for."""
    logprobs = inferred.answers[0].logprobs
    return None if logprobs is None else math.exp(sum(token.logprob for token in logprobs))


def model_used(vlm: Vlm) -> ModelUsed:
    """Name the model that answers."""
    return ModelUsed(id=public_id(vlm.id), revision=vlm.revision)


def merge_done(planned: Sequence[Planned], because: str | None = None) -> MergeDone:
    """Describe the merging of pictures and videos; optional fields are set only where they had an effect.

    because: why method=auto chose it.
    """
    plan = planned[0].plan
    spec, method = plan.spec, METHODS[plan.method]
    chooses_layers = spec.layers is not None or (method.merges and method.layers != "all")
    acted: dict[str, Any] = {
        "r": spec.r,
        "r_hw": spec.r_hw,
        "layers": [step.layer for step in plan.steps if step] if chooses_layers else None,
        "alpha": spec.alpha if method.needs_spatial else None,
        "spatial_kernel": spec.spatial_kernel if plan.needs_spatial else None,
        "options": None if plan.options is None else dict(vars(plan.options)),
        "chosen_because": because,
    }
    return MergeDone(
        method=plan.method,
        keep_ratio=round(_sum(planned, "cells_out") / _sum(planned, "cells_in"), 6),
        tokens_in=_sum(planned, "cells_in"),
        tokens_out=_sum(planned, "cells_out"),
        vit_flops_ratio=round(_flops_ratio(planned), 4),
        saves=list(dict.fromkeys(saving for own in planned for saving in own.saves)),
        prop_attn=plan.prop_attn,
        **{name: value for name, value in acted.items() if value is not None},
    )


def _views(planned: Planned) -> ViewsUsed:
    layout = planned.layout
    return ViewsUsed(
        kind=layout.kind, count=len(layout.views), grid=layout.grid, tiles=layout.tiles, tokens=planned.tokens
    )


def _sum(planned: Sequence[Planned], name: str) -> int:
    """Sum a count of the plans over all views."""
    return sum(getattr(own.plan, name) * len(own.layout.views) for own in planned)


def _flops_ratio(planned: Sequence[Planned]) -> float:
    """Return the FLOPs of the encoder over those without merging, of all views together."""
    work = sum(len(own.layout.views) * own.plan.flops() for own in planned)
    unmerged = ((own.layout.views, make_plan(MergeSpec(), own.plan.shape)) for own in planned)
    return work / sum(len(views) * plan.flops() for views, plan in unmerged)
