"""The heads of transformers' classifiers, which their forward spells out after calling the tower."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import ImageClassifierOutput

from tosa import Tokens
from vlm.adapters.adapter import ViTAdapter
from vlm.adapters.heads import finished, weighted_mean


def output(model: Any, name: str, tower: str, adapter: ViTAdapter, tokens: Tokens) -> ImageClassifierOutput:
    """Classify the tokens as the class `name` does: ImageClassifierOutput with logits, or its subclass."""
    tokens = finished(adapter, tokens)
    if name == "DeiTForImageClassificationWithTeacher":
        return _with_teacher(model, tokens)
    return ImageClassifierOutput(logits=model.classifier(_pooled(model, name, tower, tokens)))  # pyright: ignore


def _pooled(model: Any, name: str, tower: str, tokens: Tokens) -> Tensor:
    first_token = tokens.x[:, 0]
    if name in ("SiglipForImageClassification", "CLIPForImageClassification"):
        return weighted_mean(tokens, tokens.num_prefix)
    if name.startswith("Dinov2"):
        return torch.cat([first_token, weighted_mean(tokens, tokens.num_prefix)], dim=1)
    if name == "BeitForImageClassification":
        # The pooler averages all but the first token, or takes that one; of a mean, the average is itself.
        return getattr(model, tower).pooler(torch.stack([first_token, weighted_mean(tokens, 1)], dim=1))
    return first_token


def _with_teacher(model: Any, tokens: Tokens) -> Any:
    from transformers.models.deit.modeling_deit import DeiTForImageClassificationWithTeacherOutput

    cls_logits = model.cls_classifier(tokens.x[:, 0])
    distillation_logits = model.distillation_classifier(tokens.x[:, 1])
    return DeiTForImageClassificationWithTeacherOutput(
        logits=(cls_logits + distillation_logits) / 2,
        cls_logits=cls_logits,
        distillation_logits=distillation_logits,
    )
