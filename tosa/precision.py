"""The precision of sums and similarities: float32, or float64 where values are float64."""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(values: Tensor, like: Tensor | None = None) -> Tensor:
    """Return values in float32; in float64 if they, or the values of `like`, are float64."""
    dtype = (values if like is None else like).dtype
    return values.to(torch.promote_types(dtype, torch.float32))
