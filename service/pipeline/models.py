"""What a process answers with: the loaded models, and the frames they remember.

Loading belongs in the model thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.pipeline.estimation import Estimation, load_estimation
from service.pipeline.frame_cache import FrameCache
from service.settings import Settings
from vlm import Vlm, load_vlm


@dataclass(frozen=True, eq=False)
class Models:
    """Hold the model that answers, what estimates depth (None if nothing does), and frames encoded lately."""

    vlm: Vlm
    estimation: Estimation | None
    frames: FrameCache


def load_models(settings: Settings) -> Models:
    """Load what these settings name. Raises VlmError and EstimatorError."""
    required = settings.require_manifest
    vlm = load_vlm(settings.model, settings.device, settings.torch_dtype, require_manifest=required)
    return Models(vlm, load_estimation(settings), FrameCache(settings.frame_cache_bytes))
