"""From images to classes with merging: the model's own head on merged tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tosa import MergeSpec, make_plan
from vlm.adapters import adapt
from vlm.adapters.heads import head_of
from vlm.vision import encode, require_images


def classify(model: Any, pixel_values: Tensor, spec: MergeSpec, spatial: Tensor | None = None) -> Tensor:
    """Classify images with merging and the model's own head: logits [B, classes].

    With method "none" they equal those of `model(pixel_values)`. Average and attention pooling weigh each
    token by the patches it stands for; a timm model without classes gives its pooled features.
    pixel_values: [B, 3, H, W]; spatial: [B, P, S], for methods that need it. Raises PlanError, and VlmError:
    no_head for a model that does not classify, else as `tosa_encode`.
    """
    require_images(pixel_values)
    adapter = adapt(model, image_size=(pixel_values.shape[-2], pixel_values.shape[-1]))
    head = head_of(model)
    tokens = encode(adapter, pixel_values, make_plan(spec, adapter.shape), spatial)
    return head.logits(head.output(adapter, tokens))
