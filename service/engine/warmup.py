"""Warm the models up before the first request, so that no request pays for one-time work.

The tower, and the language model where it is in this process, run for one question without merging and one
with the default method; every other method merges once, on tokens of the tower's size, which costs
milliseconds whatever the model.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from service.engine.batch_runner import answer_here
from service.pipeline.frames import frame_visuals
from service.pipeline.models import Models
from service.pipeline.prepare import prepare
from service.request.schemas import DEFAULT_KEEP_RATIO, VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import (
    METHODS,
    MergePlan,
    MergeSpec,
    PlanError,
    Tokens,
    by_window,
    merge_step,
    position_tokens,
)
from vlm import Vlm, layouts, plan_views
from vlm.language import embed

SIDE_PX = 64
"""Of the picture that is asked about."""


def warm_up(models: Models, settings: Settings) -> None:
    """Run every method once. Methods that this model does not support are skipped."""
    vlm = models.vlm
    _ = vlm.vocabulary  # read now: it takes a second for a large one
    for name in METHODS:
        plan = possible_plan(vlm, name)
        if plan is None:
            continue
        if name in ("none", "tosa"):
            prepared = prepare(models, _made_up_question(plan), settings, StageTimer())
            if settings.language == "torch":
                answer_here(models, prepared)
            else:
                embed(vlm, prepared.prompt.to(vlm.device), frame_visuals(vlm, prepared.frames))
        else:
            merge_once(vlm, plan)


def possible_plan(vlm: Vlm, name: str) -> MergePlan | None:
    """Plan the default keep_ratio, or the smallest this model can have; None if the method cannot run."""
    (layout,) = layouts(vlm, [(SIDE_PX, SIDE_PX)])
    keep_ratio: float | None = DEFAULT_KEEP_RATIO if METHODS[name].merges else None
    try:
        return plan_views(vlm, MergeSpec(name, keep_ratio=keep_ratio), layout)
    except PlanError as error:
        if error.code != "keep_ratio_too_small":
            return None
        return plan_views(vlm, MergeSpec(name, keep_ratio=error.limit), layout)


@torch.inference_mode()
def merge_once(vlm: Vlm, plan: MergePlan) -> Tokens | None:
    """Run the first merging layer on random tokens; None if no layer merges."""
    step = next((step for step in plan.steps if step is not None), None)
    if step is None:
        return None
    shape = plan.shape
    x = torch.randn(
        1, shape.num_prefix + shape.patches, shape.hidden_size, device=vlm.device, dtype=vlm.dtype
    )
    spatial = position_tokens(shape.grid).to(vlm.device) if plan.needs_spatial else None
    tokens = Tokens.start(x, shape.grid, shape.num_prefix, spatial, shape.window, cell=shape.cell)
    if plan.regions is not None:
        tokens = by_window(tokens)
    return merge_step(METHODS[plan.method], tokens, tokens.x, step)


def _made_up_question(plan: MergePlan) -> VqaRequest:
    image = _png(np.full((SIDE_PX, SIDE_PX, 3), 128, dtype=np.uint8))
    depth = _png(np.arange(1, SIDE_PX**2 + 1, dtype=np.uint16).reshape(SIDE_PX, SIDE_PX))
    spec = plan.spec
    fields = VqaFields(
        question="What is this?", method=spec.method, keep_ratio=spec.keep_ratio, max_new_tokens=2
    )
    return VqaRequest(fields, (image,), (depth,))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
